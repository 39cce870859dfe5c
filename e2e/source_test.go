package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/kbuild-sandbox/kbuild-sandbox"

// room is a package of the product.
type room struct {
	ImportPath, Name, Dir               string
	Imports, Deps, GoFiles, TestGoFiles []string

	name  string // path below the module
	files []*file
	info  *types.Info
	pkg   *types.Package
}

// file is one source file of a room.
type file struct {
	base    string
	fset    *token.FileSet
	syntax  *ast.File
	imports map[string]string // local name -> path
}

// listRooms reads the module's packages but for the end-to-end tests.
func listRooms(t *testing.T) map[string]*room {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Name,Dir,Imports,Deps,GoFiles,TestGoFiles", "./...")
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	rooms := map[string]*room{}
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		r := &room{}
		if err := d.Decode(r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name, ours := strings.CutPrefix(r.ImportPath, module+"/")
		if !ours || name == "e2e" || strings.HasPrefix(name, "e2e/") || strings.Contains(name, "/testdata/") {
			continue
		}
		r.name = name
		if err := r.parse(); err != nil {
			t.Fatal(err)
		}
		rooms[name] = r
	}
	if len(rooms) < 5 {
		t.Fatalf("go list found %d rooms: this test looks at nothing", len(rooms))
	}
	return rooms
}

func (r *room) parse() error {
	fset := token.NewFileSet()
	for _, name := range r.GoFiles {
		src, err := os.ReadFile(filepath.Join(r.Dir, name))
		if err != nil {
			return err
		}
		if err := r.add(fset, name, src); err != nil {
			return err
		}
	}
	r.check(fset)
	return nil
}

func (r *room) add(fset *token.FileSet, name string, src []byte) error {
	syntax, err := parser.ParseFile(fset, r.name+"/"+name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := &file{base: name, fset: fset, syntax: syntax, imports: map[string]string{}}
	for _, spec := range syntax.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		local := path[strings.LastIndex(path, "/")+1:]
		if spec.Name != nil {
			local = spec.Name.Name
		}
		f.imports[local] = path
	}
	r.files = append(r.files, f)
	return nil
}

// noImports makes every import fail: what remains is enough to know which
// names are the package's own variables.
type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) {
	return nil, fmt.Errorf("%s is not looked at", path)
}

func (r *room) check(fset *token.FileSet) {
	r.info = &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: noImports{}, Error: func(error) {}}
	var files []*ast.File
	for _, f := range r.files {
		files = append(files, f.syntax)
	}
	r.pkg, _ = conf.Check(r.ImportPath, fset, files, r.info) // errors are those of the imports
}

func (f *file) at(n ast.Node) string { return f.fset.Position(n.Pos()).String() }

// use is a mention of another package's name.
type use struct {
	name string // import path + "." + name
	node ast.Node
}

func (f *file) uses() []use {
	var out []use
	for n := range ast.Preorder(f.syntax) {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			continue
		}
		if x, ok := sel.X.(*ast.Ident); ok && f.imports[x.Name] != "" {
			out = append(out, use{f.imports[x.Name] + "." + sel.Sel.Name, sel})
		}
	}
	return out
}

// shape checks one node: init functions, where a context stands, how large an
// interface is.
func (f *file) shape(n ast.Node) []string {
	const most = 3 // methods
	switch n := n.(type) {
	case *ast.FuncDecl:
		if n.Recv == nil && n.Name.Name == "init" {
			return []string{f.at(n) + ": func init"}
		}
		return f.contextFirst(n.Name.Name, n.Type)
	case *ast.TypeSpec:
		i, ok := n.Type.(*ast.InterfaceType)
		if !ok {
			return nil
		}
		methods := 0
		for _, m := range i.Methods.List {
			methods += len(m.Names)
		}
		if methods > most {
			return []string{fmt.Sprintf("%s: interface %s has %d methods", f.at(n), n.Name.Name, methods)}
		}
	}
	return nil
}

func (f *file) contextFirst(name string, t *ast.FuncType) []string {
	at := 0
	for _, p := range t.Params.List {
		sel, ok := p.Type.(*ast.SelectorExpr)
		if ok && sel.Sel.Name == "Context" && at > 0 {
			if x, ok := sel.X.(*ast.Ident); ok && f.imports[x.Name] == "context" {
				return []string{f.at(t) + ": the context is not the first argument of " + name}
			}
		}
		at += max(1, len(p.Names))
	}
	return nil
}

// mutableState finds package variables that something changes, that have no
// value from the start, or whose type exists to be changed. In cmd, a main
// package's `version` is stamped by the linker.
func (r *room) mutableState(inCmd bool) []string {
	var out []string
	for _, f := range r.files {
		for _, d := range f.syntax.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				embedded := strings.Contains(text(g.Doc)+text(v.Doc), "go:embed")
				stamped := inCmd && r.Name == "main" && v.Names[0].Name == "version"
				if len(v.Values) == 0 && !embedded && !stamped {
					out = append(out, f.at(v)+": package variable "+v.Names[0].Name+" has no value from the start")
				}
				if sel, ok := v.Type.(*ast.SelectorExpr); ok {
					if x, ok := sel.X.(*ast.Ident); ok && strings.HasPrefix(f.imports[x.Name], "sync") {
						out = append(out, f.at(v)+": package variable "+v.Names[0].Name+" exists to be changed")
					}
				}
			}
		}
		for n := range ast.Preorder(f.syntax) {
			for _, target := range changed(n) {
				if v := r.packageVar(target); v != "" {
					out = append(out, f.at(n)+": package variable "+v+" is changed")
				}
			}
		}
	}
	return out
}

func text(c *ast.CommentGroup) string {
	if c == nil {
		return ""
	}
	var out string
	for _, l := range c.List {
		out += l.Text
	}
	return out
}

// changed lists what a node assigns to, or hands out for it.
func changed(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	case *ast.CallExpr:
		if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
			return n.Args[:1]
		}
	}
	return nil
}

// packageVar is the package variable at the root of an expression, or empty.
func (r *room) packageVar(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.Ident:
			if v, ok := r.info.Uses[x].(*types.Var); ok && r.pkg != nil && v.Parent() == r.pkg.Scope() {
				return x.Name
			}
			return ""
		default:
			return ""
		}
	}
}
