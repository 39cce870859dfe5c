package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// readAllowed reads the list of cases that may still fail: blocks of case
// names, each block below a comment with the reason. The result maps a case to
// its reason.
func readAllowed(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	reason, comment := "", false
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		text, isComment := strings.CutPrefix(line, "#")
		switch {
		case isComment && comment:
			reason += " " + strings.TrimSpace(text)
		case isComment:
			reason = strings.TrimSpace(text)
		case line == "":
			reason = ""
		case reason == "":
			return nil, fmt.Errorf("%s:%d: %s has no reason above it", file, n, line)
		case out[line] != "":
			return nil, fmt.Errorf("%s:%d: %s is listed twice", file, n, line)
		default:
			out[line] = reason
		}
		comment = isComment
	}
	return out, lines.Err()
}
