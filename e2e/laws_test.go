package e2e

import (
	"go/token"
	"strings"
	"testing"
)

// TestLawsBite shows each law a room that breaks it.
func TestLawsBite(t *testing.T) {
	for _, c := range []struct {
		law  func(map[string]*room) []string
		room string
		src  string
		want string
	}{
		{lawArrows, "executor/layer", `import "` + module + `/executor/step"`, "executor/layer imports executor/step"},
		{lawArrows, "executor/request", `import "golang.org/x/sys/unix"`, "standard library only"},
		{lawArrows, "executor/magic", ``, "does not have"},
		{lawPowers, "executor/layer", `import "golang.org/x/sys/unix"
			func f() { unix.Mount("a", "b", "c", 0, "") }`, "mounts: golang.org/x/sys/unix.Mount"},
		{lawPowers, "executor/step", `import sys "golang.org/x/sys/unix"
			func f() { sys.Mount("a", "b", "c", 0, "") }`, "mounts: golang.org/x/sys/unix.Mount"},
		{lawPowers, "executor/plan", `import "net/http"
			func f() { http.Get("") }`, "dials: net/http.Get"},
		{lawPowers, "executor/registry", `import "os/exec"
			func f() { exec.Command("") }`, "executes: os/exec.Command"},
		{lawPowers, "sandbox", `import "fmt"
			func f() { fmt.Println() }`, "prints: fmt.Println"},
		{lawPowers, "executor/layer", `import "os"
			var x = os.Stderr`, "prints: os.Stderr"},
		{lawState, "executor/layer", `func init() {}`, "func init"},
		{lawState, "executor/layer", `var x int`, "no value from the start"},
		{lawState, "executor/layer", "import \"sync\"\nvar x sync.Pool = f()", "exists to be changed"},
		{lawState, "executor/layer", `var x = map[string]int{}
			func f() { x["a"] = 1 }`, "x is changed"},
		{lawState, "executor/layer", `var x = 1
			func f() *int { return &x }`, "x is changed"},
		{lawState, "executor/layer", `var x = map[int]int{}
			func f() { delete(x, 1) }`, "x is changed"},
		{lawState, "executor/layer", `import "os"
			var x = os.Getenv("A")`, "os.Getenv"},
		{lawState, "executor/layer", `import "context"
			func f(a int, ctx context.Context) {}`, "not the first argument"},
		{lawState, "executor/layer", `type I interface { A(); B(); C(); D() }`, "has 4 methods"},
		{lawNames, "executor/util", ``, "says nothing"},
		{lawNames, "executor/layer", ``, "no doc.go"},
	} {
		found := strings.Join(c.law(one(t, c.room, c.src)), "\n")
		if !strings.Contains(found, c.want) {
			t.Errorf("%s with %q: %q was not found, but %q", c.room, c.src, c.want, found)
		}
	}
}

// TestLawsLetGo shows what the laws must not find.
func TestLawsLetGo(t *testing.T) {
	for _, src := range []string{
		"var x = 1\nfunc f() { x := 2; x = 3; _ = x }",
		"var x = []int{1}\nfunc f() int { return x[0] }",
		"import _ \"embed\"\n//go:embed x\nvar x []byte",
		"import \"context\"\nfunc f(ctx context.Context, a int) {}",
	} {
		rooms := one(t, "executor/layer", src)
		if found := append(lawState(rooms), lawPowers(rooms)...); len(found) > 0 {
			t.Errorf("%q: %v", src, found)
		}
	}
}

func TestLaw1Bites(t *testing.T) {
	rooms := map[string]*room{
		"cmd/kbuild-sandbox": {name: "cmd/kbuild-sandbox", Deps: []string{"net/http", module + "/sandbox"}},
		"sandbox":            {name: "sandbox", ImportPath: module + "/sandbox", Imports: []string{"net/http"}},
	}
	if found := lawLauncher(rooms); len(found) != 1 || !strings.Contains(found[0], "reaches net/http through sandbox") {
		t.Errorf("found %q", found)
	}
}

// one is a house with one room of one file.
func one(t *testing.T, name, src string) map[string]*room {
	t.Helper()
	r := &room{name: name, Name: "p", ImportPath: module + "/" + name}
	fset := token.NewFileSet()
	if err := r.add(fset, "a.go", []byte("package p\n"+src)); err != nil {
		t.Fatal(err)
	}
	r.check(fset)
	for _, p := range r.files[0].imports {
		r.Imports = append(r.Imports, p)
	}
	return map[string]*room{name: r}
}
