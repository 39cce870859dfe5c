package progress

import (
	"fmt"
	"io"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// reportLines is how many of the last lines of a failed step are repeated.
const reportLines = 20

// Report tells a person why a build failed: what is wrong, where, what the
// step said last, and what to do.
//
//	error: Dockerfile:3: RUN make: exit code 2
//
//	   1 |     FROM debian
//	   3 | >>> RUN make
//
//	last output:
//	  | make: *** No targets.  Stop.
//
//	hint: ...
//
// Of opt, Color and Mask count. Lines of the failure's own texts never stand at
// the begin of a line.
func Report(w io.Writer, f request.Failure, opt Options) error {
	paint := painter{on: opt.Color}
	var out strings.Builder
	f = Mask(f, opt.Mask)
	where := ""
	if f.File != "" && f.Line > 0 {
		where = fmt.Sprintf("%s:%d: ", oneLine(f.File, maxName), f.Line)
	}
	out.WriteString(paint.bad("error: ") + where + further(strings.TrimSpace(Clean(cut(f.Message, maxText)))) + "\n")
	if f.ExitCode != 0 && !strings.Contains(f.Message, fmt.Sprint(f.ExitCode)) {
		fmt.Fprintf(&out, "exit code: %d\n", f.ExitCode)
	}
	if excerpt := strings.Trim(f.Excerpt, "\n"); excerpt != "" {
		out.WriteString("\n" + inset(Clean(cut(excerpt, maxText))) + "\n")
	}
	if log := strings.TrimRight(string(f.Log), " \t\r\n"); log != "" {
		lines := strings.Split(Clean(log), "\n")
		out.WriteString("\nlast output:\n")
		for _, l := range lines[max(len(lines)-reportLines, 0):] {
			out.WriteString("  | " + l + "\n")
		}
	}
	if f.Hint != "" {
		out.WriteString("\n" + hints(paint, f.Hint))
	}
	_, err := hiding{w, opt.Mask}.Write([]byte(out.String()))
	return err
}

// inset has every line of an excerpt begin with a blank, as the executor writes
// it: the number of the line is in a column of four.
func inset(excerpt string) string {
	lines := strings.Split(excerpt, "\n")
	for i, l := range lines {
		if !strings.HasPrefix(l, " ") {
			lines[i] = " " + l
		}
	}
	return strings.Join(lines, "\n")
}

// Error tells a person of an error that is not about a Dockerfile; each line
// of the message is a fault of its own. Of opt, Color and Mask count.
func Error(w io.Writer, message, hint string, opt Options) error {
	paint := painter{on: opt.Color}
	var out strings.Builder
	message, hint = opt.Mask.Text(message), opt.Mask.Text(hint)
	for line := range strings.SplitSeq(strings.TrimSpace(Clean(message)), "\n") {
		out.WriteString(paint.bad("error: ") + line + "\n")
	}
	if hint != "" {
		out.WriteString(hints(paint, hint))
	}
	_, err := hiding{w, opt.Mask}.Write([]byte(out.String()))
	return err
}

func hints(paint painter, text string) string {
	var out strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(Clean(cut(text, maxText))), "\n") {
		out.WriteString(paint.warning("hint: ") + line + "\n")
	}
	return out.String()
}
