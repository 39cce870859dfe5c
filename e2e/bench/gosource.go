package main

import (
	"bytes"
	"context"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"text/template"
)

// What case A compiles: a module that needs nothing from the network, of about
// the size that makes its RUN steps take 20 s of CPU time. Debian's Go has the
// standard library compiled, so the source must bring the work; most of it is
// done by vet, which compiles what build then only links.
const (
	goServices    = 14 // packages, each of which imports those next to it
	goFiles       = 6  // of each package
	goTypes       = 8  // of each file
	goCommands    = 3
	goImportsBack = 3 // how many packages a package imports
)

// goSource writes the module to dir.
func goSource(_ context.Context, dir string) error {
	files := map[string][]byte{"go.mod": []byte("module example.com/bench\n\ngo 1.19\n")}
	for s := range goServices {
		pkg := fmt.Sprintf("service%d", s)
		var back []int
		for i := max(0, s-goImportsBack); i < s; i++ {
			back = append(back, i)
		}
		files[pkg+"/"+pkg+".go"] = generate(serviceTemplate, map[string]any{"N": s, "Back": back})
		for f := range goFiles {
			types := make([]int, goTypes)
			for i := range types {
				types[i] = f*goTypes + i
			}
			files[fmt.Sprintf("%s/types%d.go", pkg, f)] = generate(typesTemplate, map[string]any{"N": s, "Types": types})
		}
	}
	for c := range goCommands {
		files[fmt.Sprintf("server%d/main.go", c)] = generate(commandTemplate, map[string]any{"N": c, "Last": goServices - 1})
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate fills in a template and formats it, as a RUN step looks at that. Both
// can fail only by a mistake in this file.
func generate(t *template.Template, data any) []byte {
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		panic(err)
	}
	text, err := format.Source(out.Bytes())
	if err != nil {
		panic(err)
	}
	return text
}

var serviceTemplate = template.Must(template.New("service").Parse(`// Package service{{.N}} is generated.
package service{{.N}}

{{if .Back}}import (
{{range .Back}}"example.com/bench/service{{.}}"
{{end}}){{end}}

// All counts what this package and those below it keep.
func All(text string) int {
	n := len(Parse0(text))
	{{range .Back}}n += service{{.}}.All(text)
	{{end}}return n
}
`))

var typesTemplate = template.Must(template.New("types").Parse(`package service{{.N}}

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"
)

{{range .Types}}
// Record{{.}} is one line of what Parse{{.}} reads.
type Record{{.}} struct {
	ID    int               ` + "`json:\"id\"`" + `
	Name  string            ` + "`json:\"name\"`" + `
	Tags  map[string]string ` + "`json:\"tags\"`" + `
	Value float64           ` + "`json:\"value\"`" + `
}

// Store{{.}} keeps records by their name.
type Store{{.}} struct {
	mu      sync.Mutex
	records map[string][]Record{{.}}
}

// Parse{{.}} reads lines of the form id name value key=tag...
func Parse{{.}}(text string) []Record{{.}} {
	var out []Record{{.}}
	for _, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		id, err := strconv.Atoi(fields[0])
		if err != nil {
			continue
		}
		value, err := strconv.ParseFloat(fields[2], 64)
		if err != nil {
			value = {{.}}
		}
		r := Record{{.}}{ID: id, Name: fields[1], Value: value, Tags: map[string]string{}}
		for _, tag := range fields[3:] {
			if i := strings.IndexByte(tag, '='); i > 0 {
				r.Tags[tag[:i]] = tag[i+1:]
			}
		}
		out = append(out, r)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// Add keeps a record.
func (s *Store{{.}}) Add(r Record{{.}}) error {
	switch {
	case r.Name == "":
		return errors.New("record {{.}}: no name")
	case r.ID < 0:
		return fmt.Errorf("record {{.}}: %q: negative id %d", r.Name, r.ID)
	case r.Value > {{.}}e6:
		return fmt.Errorf("record {{.}}: %q: value %g is too large", r.Name, r.Value)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == nil {
		s.records = map[string][]Record{{.}}{}
	}
	s.records[r.Name] = append(s.records[r.Name], r)
	return nil
}

// Sums adds up the values of each name.
func (s *Store{{.}}) Sums() map[string]float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]float64{}
	for name, records := range s.records {
		for i, r := range records {
			out[name] += r.Value * float64(i%{{.}}7)
			for k, v := range r.Tags {
				out[name+"/"+k] += float64(len(v))
			}
		}
	}
	return out
}

// MarshalJSON writes all records in the order of their names.
func (s *Store{{.}}) MarshalJSON() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.records {
		names = append(names, name)
	}
	sort.Strings(names)
	var all []Record{{.}}
	for _, name := range names {
		all = append(all, s.records[name]...)
	}
	return json.Marshal(all)
}
{{end}}`))

var commandTemplate = template.Must(template.New("command").Parse(`// Command server{{.N}} is generated.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"

	"example.com/bench/service{{.Last}}"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintln(w, {{.N}}, service{{.Last}}.All(string(text)))
	})
	log.Fatal(http.ListenAndServe(":8080", nil))
}
`))
