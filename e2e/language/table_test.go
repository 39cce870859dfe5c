package language

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write README.md")

func read(t *testing.T) ([]*Section, []*Case) {
	t.Helper()
	sections, err := ReadRows("rows.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := ReadCases(".")
	if err != nil {
		t.Fatal(err)
	}
	return sections, cases
}

func TestTableIsUpToDate(t *testing.T) {
	sections, cases := read(t)
	want := Table(sections, cases)
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("README.md")
	if err != nil || string(got) != want {
		t.Errorf("README.md is not what rows and cases make (%v): go test ./e2e/language -update", err)
	}
}

// TestEveryRowIsHeld also looks for what a row names: a conformance case where
// the suite is there, a script, a Go test.
func TestEveryRowIsHeld(t *testing.T) {
	sections, cases := read(t)
	for _, s := range sections {
		for _, r := range s.Rows {
			if len(r.holders(cases)) == 0 {
				t.Errorf("nothing holds the row %q", r.Name())
			}
			for _, missing := range missingHolders(r) {
				t.Errorf("row %q: %s is not there", r.Name(), missing)
			}
			if r.Refused != "" && !isRefused(r, cases) {
				t.Errorf("row %q: no case is refused with the words %q", r.Name(), r.Refused)
			}
		}
	}
}

func missingHolders(r *Row) []string {
	var missing []string
	check := func(name, file string) {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, name)
		}
	}
	for _, s := range r.Scripts {
		check("script "+s, filepath.Join("..", "scripts", s+".txtar"))
	}
	if suite := os.Getenv("KBUILD_CONFORMANCE"); suite != "" {
		for _, c := range r.Conformance {
			check("conformance case "+c, filepath.Join(suite, "cases", c+".txtar"))
		}
	}
	for _, test := range r.Tests {
		dir, name, _ := strings.Cut(test, " ")
		if !hasTest(filepath.Join("..", "..", dir), name) {
			missing = append(missing, test)
		}
	}
	return missing
}

func hasTest(dir, name string) bool {
	files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), "func "+name+"(")
	})
}

// isRefused says whether a case of the row fails with words that the row names.
func isRefused(r *Row, cases []*Case) bool {
	return slices.ContainsFunc(cases, func(c *Case) bool {
		return c.Fails && slices.Contains(c.Rows, r.Name()) &&
			slices.ContainsFunc(c.Words, func(w string) bool { return strings.Contains(r.Refused, w) })
	})
}

// TestEveryCaseHasItsPlace wants that a case names rows that there are, lies in
// the directory of its first row's section, and says what it is about.
func TestEveryCaseHasItsPlace(t *testing.T) {
	sections, cases := read(t)
	known := map[string]bool{}
	for _, s := range sections {
		for _, r := range s.Rows {
			if known[r.Name()] {
				t.Errorf("two rows are called %q", r.Name())
			}
			known[r.Name()] = true
		}
	}
	for _, c := range cases {
		if c.About == "" || len(c.Rows) == 0 {
			t.Errorf("%s does not say what it is about, or which row it holds", c.Name)
		}
		for _, r := range c.Rows {
			if !known[r] {
				t.Errorf("%s: there is no row %q", c.Name, r)
			}
		}
	}
}

func TestReadRowsRefuses(t *testing.T) {
	for text, fault := range map[string]string{
		"- a :: b\n":                "before the first section",
		"= 1 x\n  scripts: a\n":     "before the first row",
		"= 1 x\n- a b\n":            "without a text",
		"= 1 x\n- a :: b\n  c: d\n": "unknown line",
	} {
		file := filepath.Join(t.TempDir(), "rows")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadRows(file); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%q: %v, want %q", text, err, fault)
		}
	}
}

func TestReadComment(t *testing.T) {
	c, err := ReadComment("About\nit.\nrow: 2.4 a b\nrow: 2.1 c\nbuildah: differs: it is slow\nbuildkit: differs: so\n")
	if err != nil || c.About != "About it." || !slices.Equal(c.Rows, []string{"2.4 a b", "2.1 c"}) ||
		c.Buildah != "it is slow" || c.BuildKit != "so" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []string{"buildah: yes\n", "buildkit: same\n"} {
		if _, err := ReadComment(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
