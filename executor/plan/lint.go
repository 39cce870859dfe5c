package plan

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/patternmatcher"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// checkArg is the build argument that replaces the check directive.
const checkArg = "BUILDKIT_DOCKERFILE_CHECK"

// maxWarnings bounds what one Dockerfile can have said about it.
const maxWarnings = 1000

// Check carries out the build checks and nothing else: of all stages, or, if
// there is a target, of those that it needs. The remarks are in the order of
// the lines. They are returned with an error, too: that of a Dockerfile which
// cannot be built, or of remarks under error=true. A Dockerfile that
// dockerfile.Parse returned with an error can be checked as well.
func Check(ctx context.Context, file *dockerfile.File, opt Options, images Resolver) ([]Warning, error) {
	opt.AllStages = opt.Target == ""
	m, err := newMaker(file, opt, images)
	if err != nil {
		return nil, err
	}
	_, err = m.make(ctx)
	return m.checks.sorted(), err
}

// checks collects the remarks of BuildKit's build checks. The rules, their
// names and texts are in BuildKit's linter; what sets them off is here, but for
// those that its parser sees to itself.
type checks struct {
	lint     *linter.Linter
	warnings []Warning
	ignore   *patternmatcher.PatternMatcher
}

func newChecks(file *dockerfile.File, args map[string]string, ignore []string) (*checks, error) {
	option, from := file.Check, "check options"
	if given, ok := args[checkArg]; ok {
		option, from = given, checkArg
	}
	config, err := linter.ParseLintOptions(option)
	if err != nil {
		return nil, dockerfile.Errorf(request.ClassParse, nil, "failed to parse %s: %w", from, err)
	}
	c := &checks{}
	config.Warn = func(rule, description, url, text string, at []parser.Range) {
		line, end := dockerfile.Lines(at)
		c.warn(Warning{Rule: rule, Description: description, Text: text, URL: url, Line: line, EndLine: end})
	}
	c.lint = linter.New(config)
	if len(ignore) > 0 {
		if c.ignore, err = patternmatcher.New(ignore); err != nil {
			return nil, dockerfile.Errorf(request.ClassParse, nil, "ignore file: %w", err)
		}
	}
	return c, nil
}

func (c *checks) warn(w Warning) {
	if len(c.warnings) < maxWarnings {
		c.warnings = append(c.warnings, w)
	}
}

// at is the linter with what the comments above an instruction say.
func (c *checks) at(i instructions.Command) *linter.Linter {
	return c.lint.WithMergedConfigFromComments(i.Comments())
}

// sorted are the remarks in the order of the lines. A remark may come twice, as
// with BuildKit: a variable that is not defined may be used twice.
func (c *checks) sorted() []Warning {
	slices.SortStableFunc(c.warnings, func(a, b Warning) int { return cmp.Compare(a.Line, b.Line) })
	return c.warnings
}

// err is the error that check=error=true makes of remarks.
func (c *checks) err() error {
	if !c.lint.ReturnAsError || len(*c.lint.CalledRules) == 0 {
		return nil
	}
	rules := slices.Compact(slices.Sorted(slices.Values(*c.lint.CalledRules)))
	e := dockerfile.Errorf(request.ClassLint, nil, "lint violation found for rules: %s", strings.Join(rules, ", "))
	for _, w := range c.sorted() {
		if w.Rule != "" {
			e.Line, e.EndLine = w.Line, w.Line
			e.Hint = w.Rule + ": " + w.Text
			break
		}
	}
	return e
}

// stageNames remarks on reserved names and on names used twice.
func (c *checks) stageNames(stages []instructions.Stage) {
	seen := map[string]bool{}
	for _, s := range stages {
		if s.Name == "" {
			continue
		}
		if s.Name == "context" || s.Name == "scratch" {
			c.lint.Run(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(s.Name))
		}
		if seen[s.Name] {
			c.lint.Run(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(s.Name))
		}
		seen[s.Name] = true
	}
}

// casing remarks on instructions that are not cased as most of them are.
func (c *checks) casing(stages []instructions.Stage) {
	type named struct {
		name string
		at   []parser.Range
	}
	var all []named
	lower, upper := 0, 0
	for _, s := range stages {
		all = append(all, named{s.OrigCmd, s.Location})
		for _, i := range s.Commands {
			all = append(all, named{i.Name(), i.Location()})
		}
	}
	for _, n := range all {
		switch n.name {
		case strings.ToLower(n.name):
			lower++
		case strings.ToUpper(n.name):
			upper++
		}
	}
	want, casing := strings.ToUpper, "uppercase"
	if lower > upper {
		want, casing = strings.ToLower, "lowercase"
	}
	for _, n := range all {
		if want(n.name) != n.name {
			c.lint.Run(&linter.RuleConsistentInstructionCasing, n.at, linter.RuleConsistentInstructionCasing.Format(n.name, casing))
		}
	}
}

// defaultBases remarks on base names that need a build argument to make sense.
func (c *checks) defaultBases(m *maker, stages []instructions.Stage, defaults *scope) {
	for _, s := range stages {
		res, err := m.expand(m.lex, s.BaseName, defaults)
		if err != nil {
			return
		}
		if _, err := reference.ParseNormalizedNamed(res.Result); err != nil {
			c.lint.Run(&linter.RuleInvalidDefaultArgInFrom, s.Location, linter.RuleInvalidDefaultArgInFrom.Format(s.BaseName))
		}
	}
}

// undeclared remarks on variables in FROM that no global ARG declares.
func (c *checks) undeclared(m *maker, names map[string]struct{}, at []parser.Range, lint *linter.Linter) {
	for _, n := range sortedKeys(names) {
		if _, ok := m.declared[n]; ok {
			continue
		}
		options := m.global.Keys()
		if len(m.declared)+len(options) <= maxOptions {
			options = append(options, sortedKeys(m.declared)...)
		}
		lint.Run(&linter.RuleUndefinedArgInFrom, at, linter.RuleUndefinedArgInFrom.Format(n, similar(n, options)))
	}
}

// redundantPlatform remarks on FROM --platform=$TARGETPLATFORM.
func (c *checks) redundantPlatform(m *maker, s instructions.Stage, res shell.ProcessWordResult, lint *linter.Linter) {
	if len(res.Matched) != 1 || len(res.Unmatched) != 0 {
		return
	}
	if _, ok := res.Matched["TARGETPLATFORM"]; !ok {
		return
	}
	if v, _ := m.global.Get("TARGETPLATFORM"); v == res.Result {
		lint.Run(&linter.RuleRedundantTargetPlatform, s.Location, linter.RuleRedundantTargetPlatform.Format(s.Platform))
	}
}

// constantPlatform remarks on FROM --platform=linux/amd64, unless the stage's
// name shows that it is meant.
func (c *checks) constantPlatform(s instructions.Stage, res shell.ProcessWordResult, lint *linter.Linter) {
	if len(res.Matched) > 0 || len(res.Unmatched) > 0 {
		return
	}
	p, err := platforms.Parse(res.Result)
	if err != nil || strings.Contains(s.Name, p.OS) || strings.Contains(s.Name, p.Architecture) {
		return
	}
	lint.Run(&linter.RuleFromPlatformFlagConstDisallowed, s.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(res.Result))
}

// basePlatform remarks on a base image that is for another platform. One
// without any layer is as good as scratch.
func (c *checks) basePlatform(d *draft, got ocispec.Platform) {
	hasLayer := func(h History) bool { return !h.EmptyLayer }
	if len(d.Image.RootFS.DiffIDs) == 0 && !slices.ContainsFunc(d.Image.History, hasLayer) {
		return
	}
	if d.platform.OS == got.OS && d.platform.Architecture == got.Architecture {
		return
	}
	text := linter.RuleInvalidBaseImagePlatform.Format(d.baseName,
		platforms.FormatAll(platforms.Normalize(d.platform)), platforms.FormatAll(platforms.Normalize(got)))
	c.lint.Run(&linter.RuleInvalidBaseImagePlatform, d.at, text)
}

// undefined remarks on variables that are neither set nor declared.
func (c *checks) undefined(d *draft, names map[string]struct{}, at []parser.Range, lint *linter.Linter) {
	for _, n := range sortedKeys(names) {
		declared := slices.ContainsFunc(d.declared, func(a argument) bool { return a.name == n })
		if !declared && !isScanArg(n) {
			lint.Run(&linter.RuleUndefinedVar, at, linter.RuleUndefinedVar.Format(n, d.env.similar(n)))
		}
	}
}

// legacy remarks on ENV and LABEL in the form "key value".
func (c *checks) legacy(kv instructions.KeyValuePair, name string, at []parser.Range, lint *linter.Linter) {
	if kv.NoDelim {
		lint.Run(&linter.RuleLegacyKeyValueFormat, at, linter.RuleLegacyKeyValueFormat.Format(name))
	}
}

// Names that sound like a secret, but for those that sound like something else.
var (
	secretName = regexp.MustCompile(`(?i)(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)`)
	publicName = regexp.MustCompile(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
)

// secret remarks on ARG and ENV whose name says that they hold a secret.
func (c *checks) secret(instruction, name string, at []parser.Range, lint *linter.Linter) {
	if secretName.MatchString(name) && !publicName.MatchString(name) {
		lint.Run(&linter.RuleSecretsUsedInArgOrEnv, at, linter.RuleSecretsUsedInArgOrEnv.Format(instruction, name))
	}
}

// once remarks on an instruction of which only the last counts: the remark is
// about the one before, which is kept in last.
func (c *checks) once(i instructions.Command, last **[]parser.Range, lint *linter.Linter) {
	if *last != nil {
		lint.Run(&linter.RuleMultipleInstructionsDisallowed, **last, linter.RuleMultipleInstructionsDisallowed.Format(i.Name()))
	}
	at := i.Location()
	*last = &at
}

// jsonArgs remarks on CMD and ENTRYPOINT that start a shell nobody asked for.
func (c *checks) jsonArgs(cfg *Config, i instructions.Command, lint *linter.Linter) {
	if len(cfg.Shell) == 0 {
		lint.Run(&linter.RuleJSONArgsRecommended, i.Location(), linter.RuleJSONArgsRecommended.Format(i.Name()))
	}
}

// relativeWorkdir remarks on a WORKDIR that depends on the base image's.
func (c *checks) relativeWorkdir(i *instructions.WorkdirCommand, lint *linter.Linter) {
	if !strings.HasPrefix(i.Path, "/") {
		lint.Run(&linter.RuleWorkdirRelativePath, i.Location(), linter.RuleWorkdirRelativePath.Format(i.Path))
	}
}

// port remarks on ports that are written in an odd way.
func (c *checks) port(spec string, p port, at []parser.Range, lint *linter.Linter) {
	if p.proto != strings.ToLower(p.proto) {
		lint.Run(&linter.RuleExposeProtoCasing, at, linter.RuleExposeProtoCasing.Format(spec))
	}
	if p.mapped {
		lint.Run(&linter.RuleExposeInvalidFormat, at, linter.RuleExposeInvalidFormat.Format(spec))
	}
}
