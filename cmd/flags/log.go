package flags

import (
	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/cmd/progress"
)

// Log holds the flags that say how a build is shown.
type Log struct {
	verbosity string
	format    string
	mode      string
	quiet     bool
	timestamp bool
	trace     string
}

// RegisterLog adds those flags to fs.
func RegisterLog(fs *pflag.FlagSet) *Log {
	l := &Log{verbosity: "info", mode: "auto"}
	fs.VarP(choiceValue{&l.verbosity, []string{"trace", "debug", "info", "warn", "error", "fatal", "panic"}}, "verbosity", "v", "how much is told, a `level`: trace, debug, info, warn, error, fatal, panic")
	fs.Var(choiceValue{&l.format, []string{"text", "color", "json"}}, "log-format", "`form` of messages: text has no colours, color always, json is --progress=json (default: colours on a terminal)")
	fs.Var(choiceValue{&l.mode, []string{"auto", "tty", "plain", "json"}}, "progress", "how a build is shown, a `mode`: auto, tty, plain, json; auto is tty on a terminal, else plain")
	fs.BoolVarP(&l.quiet, "quiet", "q", false, "show nothing but errors, and what was built on standard output")
	fs.BoolVar(&l.timestamp, "log-timestamp", false, "begin every line with the time; auto is then plain")
	fs.StringVar(&l.trace, "trace", "", "write to this `file` what took how long, in the format of Perfetto and chrome://tracing")
	group(fs, groupLog, "verbosity", "log-format", "progress", "quiet", "log-timestamp", "trace")
	return l
}

// Options are the display's options for a standard error that is a terminal or
// not. NO_COLOR and TERM=dumb count where no flag decides.
func (l *Log) Options(terminal bool, env func(string) (string, bool)) progress.Options {
	noColor, _ := env("NO_COLOR")
	if term, _ := env("TERM"); term == "dumb" {
		terminal = false
	}
	opt := progress.Options{Mode: progress.Mode(l.mode), Level: l.level(), Timestamp: l.timestamp}
	if l.mode == "auto" {
		switch {
		case l.format == "json":
			opt.Mode = progress.JSON
		case terminal && !l.timestamp:
			opt.Mode = progress.TTY
		default:
			opt.Mode = progress.Plain
		}
	}
	switch l.format {
	case "":
		opt.Color = terminal && noColor == ""
	case "color":
		opt.Color = true
	}
	return opt
}

// Trace is the file of --trace as an absolute path, or empty. No link of a stranger's
// checkout, in dir or in the context, may lead it elsewhere.
func (l *Log) Trace(dir, context string) (string, error) {
	return record("trace", l.trace, dir, context)
}

func (l *Log) level() progress.Level {
	if l.quiet {
		return progress.Quiet
	}
	switch l.verbosity {
	case "trace", "debug":
		return progress.Debug
	case "info":
		return progress.Normal
	case "warn":
		return progress.Warn
	}
	return progress.Quiet
}
