package executor

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/plan"
)

// outlined is the answer to --call outline.
type outlined struct {
	Name        string      `json:"name,omitempty"`
	Description string      `json:"description,omitempty"`
	Args        []parameter `json:"args,omitempty"`
	Secrets     []parameter `json:"secrets,omitempty"`
	SSH         []parameter `json:"ssh,omitempty"`
	Sources     [][]byte    `json:"sources,omitempty"`
}

type parameter struct {
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Value       string    `json:"value,omitempty"`
	Required    bool      `json:"required,omitempty"`
	Location    *location `json:"location,omitempty"`
}

func callOutline(ctx context.Context, file *dockerfile.File, opt plan.Options, images plan.Resolver, steps *Steps) (answer, error) {
	o, warnings, err := plan.MakeOutline(ctx, file, opt, images)
	steps.remarks(warnings)
	if err != nil {
		return nil, err
	}
	return &outlined{
		Name: o.Name, Description: o.Description, Sources: [][]byte{file.Data},
		Args: parameters(o.Args), Secrets: parameters(o.Secrets), SSH: parameters(o.Agents),
	}, nil
}

func parameters(list []plan.Parameter) []parameter {
	var out []parameter
	for _, p := range list {
		out = append(out, parameter{p.Name, p.Description, p.Value, p.Required, at(p.Line, p.EndLine)})
	}
	return out
}

func (*outlined) failed() bool { return false }

func (o *outlined) text(out *bytes.Buffer) {
	if o.Name != "" || o.Description != "" {
		tw := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
		fmt.Fprintf(tw, "TARGET:\t%s\n", cmp.Or(o.Name, "(default)"))
		if o.Description != "" {
			fmt.Fprintf(tw, "DESCRIPTION:\t%s\n", o.Description)
		}
		tw.Flush()
		out.WriteByte('\n')
	}
	args := [][]string{}
	for _, a := range o.Args {
		args = append(args, []string{a.Name, a.Value, a.Description})
	}
	table(out, []string{"BUILD ARG", "VALUE", "DESCRIPTION"}, args)
	for _, t := range []struct {
		title string
		list  []parameter
	}{{"SECRET", o.Secrets}, {"SSH", o.SSH}} {
		rows := [][]string{}
		for _, p := range t.list {
			required := ""
			if p.Required {
				required = "true"
			}
			rows = append(rows, []string{p.Name, required})
		}
		table(out, []string{t.title, "REQUIRED"}, rows)
	}
}

// table writes rows below a heading, and an empty line; nothing without rows.
func table(out *bytes.Buffer, heading []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	tw := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, cell)
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
	out.WriteByte('\n')
}

// listed is the answer to --call targets.
type listed struct {
	Targets []target `json:"targets"`
	Sources [][]byte `json:"sources"`
}

type target struct {
	Name        string    `json:"name,omitempty"`
	Default     bool      `json:"default,omitempty"`
	Description string    `json:"description,omitempty"`
	Base        string    `json:"base,omitempty"`
	Platform    string    `json:"platform,omitempty"`
	Location    *location `json:"location,omitempty"`
}

func callTargets(file *dockerfile.File) (answer, error) {
	list, err := plan.Targets(file)
	if err != nil {
		return nil, err
	}
	out := &listed{Sources: [][]byte{file.Data}}
	for _, t := range list {
		out.Targets = append(out.Targets, target{t.Name, t.Default, t.Description, t.Base, t.Platform, at(t.Line, t.EndLine)})
	}
	return out, nil
}

func (*listed) failed() bool { return false }

func (l *listed) text(out *bytes.Buffer) {
	tw := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprint(tw, "TARGET\tDESCRIPTION\n")
	for _, t := range l.Targets {
		name := t.Name
		switch {
		case name == "" && t.Default:
			name = "(default)"
		case t.Default:
			name += " (default)"
		}
		fmt.Fprintf(tw, "%s\t%s\n", name, t.Description)
	}
	tw.Flush()
}
