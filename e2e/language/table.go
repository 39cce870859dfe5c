package language

import (
	"fmt"
	"slices"
	"strings"
)

// intro is what stands above the table.
const intro = `# The Dockerfile language, row by row

What of the Dockerfile language works here, and what holds it. The rows are those of BuildKit's
` + "`docker/dockerfile:1`" + ` (` + "`rows.txt`" + `); the table is made of the tests: ` + "`go test ./e2e/language -update`" + ` writes it,
and the test fails where a row has nothing that holds it.

- ` + "`cases/`" + ` has small builds with BuildKit's answers, in the form of the conformance suite. ` + "`make conformance`" + ` builds them all.
- ` + "`go run ./e2e/conformance -buildah`" + ` has Debian's buildah build those marked ` + "`buildah:`" + `, and compares tree, config and failure.
- ` + "`BUILDKIT_HOST=... go run ./e2e/conformance -record -run 2.4/`" + ` writes the answers of a BuildKit into cases.

`

// Table is README.md: a table for each section, and the differences that are
// known.
func Table(sections []*Section, cases []*Case) string {
	var b strings.Builder
	b.WriteString(intro)
	for _, s := range sections {
		fmt.Fprintf(&b, "## %s %s\n\n| row | here | held by |\n|---|---|---|\n", s.Number, s.Title)
		for _, r := range s.Rows {
			fmt.Fprintf(&b, "| %s: %s | %s | %s |\n", code(r.Key), cell(r.Text), verdict(r), cell(strings.Join(r.holders(cases), ", ")))
		}
		b.WriteString("\n")
	}
	list := func(who string, reason func(*Case) string) {
		fmt.Fprintf(&b, "## Where %s does otherwise\n\n", who)
		for _, c := range cases {
			if text := reason(c); text != "" && text != "same" {
				fmt.Fprintf(&b, "- `%s`: %s %s: %s.\n", c.Name, c.About, who, text)
			}
		}
	}
	list("BuildKit", func(c *Case) string { return c.BuildKit })
	b.WriteString("\n")
	list("buildah", func(c *Case) string { return c.Buildah })
	return b.String()
}

func verdict(r *Row) string {
	if r.Refused != "" {
		return "refused: " + cell(r.Refused)
	}
	return "supported"
}

// holders are what holds a row, the cases here first.
func (r *Row) holders(cases []*Case) []string {
	var list []string
	for _, c := range cases {
		if slices.Contains(c.Rows, r.Name()) {
			list = append(list, c.Name)
		}
	}
	list = append(list, r.Conformance...)
	for _, s := range r.Scripts {
		list = append(list, s+".txtar")
	}
	for _, t := range r.Tests {
		_, name, _ := strings.Cut(t, " ")
		list = append(list, name)
	}
	return list
}

// cell is text that may stand in a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// code is text as it is typed.
func code(s string) string {
	if strings.Contains(s, "`") {
		return cell(s)
	}
	return "`" + cell(s) + "`"
}
