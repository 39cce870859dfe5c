package step

import (
	"fmt"
	"os"
)

// audit is a command in a stage.
func audit(args []string) int {
	fmt.Fprintln(os.Stderr, "auditor: unknown", args)
	return 2
}
