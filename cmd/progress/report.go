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
func Report(w io.Writer, f request.Failure, color bool) error {
	paint := painter{on: color}
	var out strings.Builder
	where := ""
	if f.File != "" && f.Line > 0 {
		where = fmt.Sprintf("%s:%d: ", oneLine(f.File, maxName), f.Line)
	}
	out.WriteString(paint.bad("error: ") + where + strings.TrimSpace(Clean(cut(f.Message, maxText))) + "\n")
	if f.ExitCode != 0 && !strings.Contains(f.Message, fmt.Sprint(f.ExitCode)) {
		fmt.Fprintf(&out, "exit code: %d\n", f.ExitCode)
	}
	if excerpt := strings.Trim(f.Excerpt, "\n"); excerpt != "" {
		out.WriteString("\n" + Clean(cut(excerpt, maxText)) + "\n")
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
	_, err := io.WriteString(w, out.String())
	return err
}

// Error tells a person of an error that is not about a Dockerfile; each line
// of the message is a fault of its own.
func Error(w io.Writer, message, hint string, color bool) error {
	paint := painter{on: color}
	var out strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(Clean(message)), "\n") {
		out.WriteString(paint.bad("error: ") + line + "\n")
	}
	if hint != "" {
		out.WriteString(hints(paint, hint))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func hints(paint painter, text string) string {
	var out strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(Clean(cut(text, maxText))), "\n") {
		out.WriteString(paint.warning("hint: ") + line + "\n")
	}
	return out.String()
}
