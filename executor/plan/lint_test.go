package plan

import (
	"context"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/frontend/dockerfile/linter"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/dockerfile"
	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// firing are Dockerfiles that set off one rule each, once; the texts are
// BuildKit's.
var firing = []struct {
	rule      string
	line, end int
	want      string
	text      string
}{
	{"StageNameCasing", 1, 1, "Stage name 'Abc' should be lowercase", "FROM scratch AS Abc\n"},
	{"FromAsCasing", 1, 1, "'as' and 'FROM' keywords' casing do not match", "FROM scratch as abc\n"},
	{"FromAsCasing", 1, 1, "'AS' and 'from' keywords' casing do not match", "from scratch AS abc\n"},
	{"NoEmptyContinuation", 4, 4, "Empty continuation line", "FROM scratch\nLABEL a=b \\\n\n c=d\n"},
	{"ConsistentInstructionCasing", 2, 2, "Command 'label' should match the case of the command majority (uppercase)", "FROM scratch\nlabel a=b\nLABEL c=d\n"},
	{"ConsistentInstructionCasing", 3, 3, "Command 'LABEL' should match the case of the command majority (lowercase)", "from scratch\nlabel a=b\nLABEL c=d\n"},
	{"ConsistentInstructionCasing", 2, 2, "Command 'Label' should match the case of the command majority (uppercase)", "FROM scratch\nLabel a=b\n"},
	{"DuplicateStageName", 2, 2, `Duplicate stage name "a", stage names should be unique`, "FROM scratch AS a\nFROM scratch AS a\n"},
	{"ReservedStageName", 1, 1, `Stage name should not use the same name as reserved stage "context"`, "FROM scratch AS context\n"},
	{"ReservedStageName", 1, 1, `Stage name should not use the same name as reserved stage "scratch"`, "FROM base:1 AS scratch\n"},
	{"JSONArgsRecommended", 2, 2, "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals", "FROM scratch\nCMD x\n"},
	{"JSONArgsRecommended", 2, 3, "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals", "FROM scratch\nENTRYPOINT x \\\n y\n"},
	{"MaintainerDeprecated", 2, 2, "Maintainer instruction is deprecated in favor of using label", "FROM scratch\nMAINTAINER me\n"},
	{"UndefinedArgInFrom", 2, 2, "FROM argument 'NAM' is not declared (did you mean NAME?)", "ARG NAME=scratch\nFROM ${NAM:-scratch}\n"},
	{"UndefinedArgInFrom", 1, 1, "FROM argument 'P' is not declared", "FROM --platform=linux/amd64$P scratch\n"},
	{"WorkdirRelativePath", 2, 2, `Relative workdir "a" can have unexpected results if the base image changes`, "FROM scratch\nWORKDIR a\n"},
	{"WorkdirRelativePath", 2, 2, `Relative workdir "a" can have unexpected results if the base image changes`, "FROM scratch\nWORKDIR a\nWORKDIR b\n"},
	{"UndefinedVar", 3, 3, "Usage of undefined variable '$NAM' (did you mean $NAME?)", "FROM scratch\nENV NAME=x\nLABEL a=$NAM\n"},
	{"UndefinedVar", 2, 2, "Usage of undefined variable '$B'", "FROM scratch\nARG A=$B\n"},
	{"UndefinedVar", 2, 2, "Usage of undefined variable '$X'", "FROM scratch\nCOPY $X /\n"},
	{"UndefinedVar", 2, 4, "Usage of undefined variable '$X'", "FROM scratch\nCOPY <<E /f\n$X\nE\n"},
	{"MultipleInstructionsDisallowed", 2, 2, "Multiple CMD instructions should not be used in the same stage because only the last one will be used", "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n"},
	{"MultipleInstructionsDisallowed", 2, 2, "Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used", "FROM scratch\nENTRYPOINT [\"a\"]\nENTRYPOINT [\"b\"]\n"},
	{"MultipleInstructionsDisallowed", 2, 2, "Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used", "FROM scratch\nHEALTHCHECK NONE\nHEALTHCHECK NONE\n"},
	{"LegacyKeyValueFormat", 2, 2, `"ENV key=value" should be used instead of legacy "ENV key value" format`, "FROM scratch\nENV a b\n"},
	{"LegacyKeyValueFormat", 2, 2, `"LABEL key=value" should be used instead of legacy "LABEL key value" format`, "FROM scratch\nLABEL a b\n"},
	{"InvalidBaseImagePlatform", 1, 1, `Base image base:1 was pulled with platform "linux/amd64", expected "linux/arm64" for current build`, "FROM --platform=$WANT base:1\n"},
	{"InvalidBaseImagePlatform", 3, 3, `Base image base:1 was pulled with platform "linux/amd64", expected "linux/arm64" for current build`, "FROM scratch\nLABEL a=b\nCOPY --from=base:1 /x /\n"},
	{"RedundantTargetPlatform", 1, 1, "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior", "FROM --platform=$TARGETPLATFORM multi:1\n"},
	{"SecretsUsedInArgOrEnv", 2, 2, `Do not use ARG or ENV instructions for sensitive data (ARG "NPM_TOKEN")`, "FROM scratch\nARG NPM_TOKEN\n"},
	{"SecretsUsedInArgOrEnv", 2, 2, `Do not use ARG or ENV instructions for sensitive data (ENV "db_password")`, "FROM scratch\nENV db_password=x\n"},
	{"InvalidDefaultArgInFrom", 2, 2, "Default value for ARG multi:${V} results in empty or invalid base image name", "ARG V\nFROM multi:${V}\n"},
	{"FromPlatformFlagConstDisallowed", 1, 1, `FROM --platform flag should not use constant value "linux/arm64"`, "FROM --platform=linux/arm64 multi:1\n"},
	{"CopyIgnoredFile", 2, 2, `Attempting to Copy file "secret/x" that is excluded by .dockerignore`, "FROM scratch\nCOPY ./secret/x /\n"},
	{"CopyIgnoredFile", 2, 2, `Attempting to Add file "secret" that is excluded by .dockerignore`, "FROM scratch\nADD secret /\n"},
	{"InvalidDefinitionDescription", 3, 3, "Comment for FROM should follow the format: `# a <description>`", "# check=experimental=all\n# nonsense\nFROM scratch AS a\n"},
	{"InvalidDefinitionDescription", 4, 4, "Comment for ARG should follow the format: `# A <description>`", "# check=experimental=InvalidDefinitionDescription\n\n# nonsense\nARG A=1\nFROM scratch\n"},
	{"InvalidDefinitionDescription", 4, 4, "Comment for ARG should follow the format: `# <arg_key> <description>`", "# check=experimental=all\nFROM scratch\n# nonsense\nARG A=1 B=2\n"},
	{"ExposeProtoCasing", 2, 2, "Defined protocol '1/TCP' in EXPOSE instruction should be lowercase", "FROM scratch\nEXPOSE 1/TCP\n"},
	{"ExposeInvalidFormat", 2, 2, "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:1:2'", "FROM scratch\nEXPOSE 127.0.0.1:1:2\n"},
	{"ExposeInvalidFormat", 2, 2, "EXPOSE instruction should not define an IP address or host-port mapping, found '80:81'", "FROM scratch\nEXPOSE 80:81\n"},
}

// quiet are Dockerfiles that come near a rule and set off none.
var quiet = []struct{ rule, text string }{
	{"StageNameCasing", "FROM scratch AS abc-1_2\n"},
	{"FromAsCasing", "from scratch as abc\n"},
	{"FromAsCasing", "FROM scratch\n"},
	{"NoEmptyContinuation", "FROM scratch\nLABEL a=b \\\n# comment\n c=d\n"},
	{"ConsistentInstructionCasing", "from scratch\nlabel a=b\n"},
	{"DuplicateStageName", "FROM scratch AS a\nFROM scratch AS b\n"},
	{"ReservedStageName", "FROM scratch AS contexts\n"},
	{"JSONArgsRecommended", "FROM scratch\nSHELL [\"a\"]\nCMD x\nENTRYPOINT y\n"},
	{"MaintainerDeprecated", "FROM scratch\nLABEL maintainer=me\n"},
	{"UndefinedArgInFrom", "ARG NAME\nFROM ${NAME:-scratch}\n"},
	{"UndefinedArgInFrom", "FROM --platform=$BUILDPLATFORM scratch$TARGETVARIANT\n"},
	{"WorkdirRelativePath", "FROM scratch\nWORKDIR /a\nWORKDIR b\n"},
	{"WorkdirRelativePath", "FROM scratch AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n"},
	{"UndefinedVar", "FROM scratch\nARG A\nLABEL a=$A b=$PATH\n"},
	{"UndefinedVar", "FROM base:1\nRUN echo $anything\n"},
	{"UndefinedVar", "FROM scratch AS a\nARG A\nFROM a\nLABEL a=$A\n"},
	{"MultipleInstructionsDisallowed", "FROM scratch AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n"},
	{"LegacyKeyValueFormat", "FROM scratch\nENV a=\"b c\"\n"},
	{"InvalidBaseImagePlatform", "FROM multi:1\n"},
	{"RedundantTargetPlatform", "FROM --platform=$BUILDPLATFORM multi:1\n"},
	{"SecretsUsedInArgOrEnv", "FROM scratch\nARG TOKEN_FILE PUBLIC_KEY TOKENIZER KEY_VERSION MONKEY\n"},
	{"SecretsUsedInArgOrEnv", "ARG NPM_TOKEN=1\nFROM scratch\n"},
	{"InvalidDefaultArgInFrom", "ARG V=1\nFROM multi:${V}\n"},
	{"FromPlatformFlagConstDisallowed", "FROM --platform=linux/arm64 multi:1 AS build-arm64\n"},
	{"CopyIgnoredFile", "FROM scratch\nCOPY . /\nCOPY secrets /\n"},
	{"CopyIgnoredFile", "FROM base:1 AS a\nFROM scratch\nCOPY --from=a secret /\n"},
	{"InvalidDefinitionDescription", "# a description, but experimental rules are off\nFROM scratch AS b\n"},
	{"InvalidDefinitionDescription", "# check=experimental=all\n# a is a stage\nFROM scratch AS a\n# A is an argument\nARG A=1\n"},
	{"ExposeProtoCasing", "FROM scratch\nEXPOSE 1/tcp 2/udp 3/sctp 4-5\n"},
	{"ExposeInvalidFormat", "FROM scratch\nEXPOSE 80-81/tcp\n"},
	{"no rule", "FROM base:1 AS unused\nCMD shell form\nFROM scratch\n"},
}

// lintText has images under their short names.
func lintText(text string) string {
	for _, name := range []string{"base:1", "multi:1", "multi:${V}"} {
		for _, before := range []string{"FROM ", "$WANT ", "PLATFORM ", "arm64 ", "--from="} {
			text = strings.ReplaceAll(text, before+name, before+"registry.test/conformance/"+name)
		}
	}
	return strings.ReplaceAll(text, "$WANT", "linux/arm64$TARGETVARIANT")
}

// lintOptions are options under which a rule can be set off.
func lintOptions(rule string) Options {
	opt := Options{Ignore: []string{"secret"}}
	switch rule {
	case "InvalidBaseImagePlatform":
		opt.Platform.OS, opt.Platform.Architecture = "linux", "arm64"
	case "InvalidDefaultArgInFrom":
		opt.Args = []request.KeyValue{arg("V", "1")}
	}
	return opt
}

func TestRulesFire(t *testing.T) {
	fired := map[string]bool{}
	for _, tc := range firing {
		p := mustPlan(t, lintText(tc.text), lintOptions(tc.rule))
		if len(p.Warnings) != 1 {
			t.Errorf("%s: %+v, want %s once", tc.text, p.Warnings, tc.rule)
			continue
		}
		got := p.Warnings[0]
		got.Text = strings.ReplaceAll(got.Text, "registry.test/conformance/", "")
		if got.Rule != tc.rule || got.Line != tc.line || got.EndLine != tc.end || got.Text != tc.want {
			t.Errorf("%s: %+v, want %s at %d-%d: %s", tc.text, got, tc.rule, tc.line, tc.end, tc.want)
		}
		if r, ok := rules()[got.Rule]; !ok || got.URL != r.url || got.Description != r.description {
			t.Errorf("%s: %q %q, want %q %q", tc.rule, got.URL, got.Description, r.url, r.description)
		}
		fired[tc.rule] = true
	}
	for rule := range rules() {
		if !fired[rule] {
			t.Errorf("no Dockerfile sets off %s", rule)
		}
	}
}

func TestRulesStayQuiet(t *testing.T) {
	covered := map[string]bool{}
	for _, tc := range quiet {
		if p := mustPlan(t, lintText(tc.text), lintOptions("")); len(p.Warnings) > 0 {
			t.Errorf("%s: %+v", tc.text, p.Warnings)
		}
		covered[tc.rule] = true
	}
	for rule := range rules() {
		if !covered[rule] {
			t.Errorf("no Dockerfile comes near %s", rule)
		}
	}
}

type ruleText struct{ description, url string }

// rules are all rules of BuildKit's linter.
func rules() map[string]ruleText {
	all := map[string]ruleText{}
	add := func(name, description, url string) { all[name] = ruleText{description, url} }
	addRule(add, linter.RuleStageNameCasing)
	addRule(add, linter.RuleFromAsCasing)
	addRule(add, linter.RuleNoEmptyContinuation)
	addRule(add, linter.RuleConsistentInstructionCasing)
	addRule(add, linter.RuleDuplicateStageName)
	addRule(add, linter.RuleReservedStageName)
	addRule(add, linter.RuleJSONArgsRecommended)
	addRule(add, linter.RuleMaintainerDeprecated)
	addRule(add, linter.RuleUndefinedArgInFrom)
	addRule(add, linter.RuleWorkdirRelativePath)
	addRule(add, linter.RuleUndefinedVar)
	addRule(add, linter.RuleMultipleInstructionsDisallowed)
	addRule(add, linter.RuleLegacyKeyValueFormat)
	addRule(add, linter.RuleInvalidBaseImagePlatform)
	addRule(add, linter.RuleRedundantTargetPlatform)
	addRule(add, linter.RuleSecretsUsedInArgOrEnv)
	addRule(add, linter.RuleInvalidDefaultArgInFrom)
	addRule(add, linter.RuleFromPlatformFlagConstDisallowed)
	addRule(add, linter.RuleCopyIgnoredFile)
	addRule(add, linter.RuleInvalidDefinitionDescription)
	addRule(add, linter.RuleExposeProtoCasing)
	addRule(add, linter.RuleExposeInvalidFormat)
	return all
}

func addRule[F any](add func(name, description, url string), r linter.LinterRule[F]) {
	add(r.Name, r.Description, r.URL)
}

// TestSecretNames: BuildKit's words, whole, first or last, in either case; and
// those that make a name harmless.
func TestSecretNames(t *testing.T) {
	for name, want := range map[string]bool{
		"apikey": true, "auth": true, "credential": true, "credentials": true, "key": true, "password": true,
		"pword": true, "passwd": true, "secret": true, "token": true, "GITHUB_TOKEN": true, "secret_MESSAGE": true,
		"api_key": true, "A_key_B": true, "author": false, "keyboard": false, "TOKENS": false, "public_key": false,
		"KEY_FILE": false, "TOKEN_VERSION": false, "MY-token": false,
	} {
		p := mustPlan(t, "FROM scratch\nARG "+name+"=1\n", Options{})
		if got := len(p.Warnings) == 1; got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}

// TestCheckDirective: what the directive, the comments above instructions and
// the build argument switch.
func TestCheckDirective(t *testing.T) {
	const bad = "FROM scratch as A\nCMD x\nWORKDIR y\n"
	all := "StageNameCasing FromAsCasing JSONArgsRecommended WorkdirRelativePath"
	for _, tc := range []struct{ text, arg, want, err string }{
		{bad, "", all, ""},
		{"# check=skip=all\n" + bad, "", "", ""},
		{"# check=skip=JSONArgsRecommended,FromAsCasing\n" + bad, "", "StageNameCasing WorkdirRelativePath", ""},
		{"# check=skip=all;experimental=all\n# no description\n" + bad, "", "InvalidDefinitionDescription", ""},
		{"# check=error=true\n" + bad, "", all, "lint violation found for rules: FromAsCasing, JSONArgsRecommended, StageNameCasing, WorkdirRelativePath"},
		{"# check=skip=all;error=true\n" + bad, "", "", ""},
		{"# check=error=false\n" + bad, "", all, ""},
		{"# check=error=true\n" + bad, "skip=all", "", ""},
		{"# check=skip=all\n" + bad, "skip=WorkdirRelativePath;error=true", "StageNameCasing FromAsCasing JSONArgsRecommended", "lint violation found for rules"},
		{"# check=nope\nFROM scratch\n", "", "", `failed to parse check options: invalid check option "nope"`},
		{"# check=error=perhaps\nFROM scratch\n", "", "", `failed to parse check options: failed to parse check option "error=perhaps"`},
		{"# check=nope\nFROM scratch\n", "error=true", "", ""},
		{"FROM scratch\n", "nope=1", "", `failed to parse BUILDKIT_DOCKERFILE_CHECK: invalid check option "nope"`},
		{"FROM scratch\n# check=skip=WorkdirRelativePath\nWORKDIR a\nCMD x\n", "", "JSONArgsRecommended", ""},
		{"# check=error=true\nFROM scratch\n# check=skip=all\nWORKDIR a\n", "", "", ""},
		{"FROM scratch\n# check=experimental=all\n# nonsense\nARG A=1\n", "", "InvalidDefinitionDescription", ""},
	} {
		opt := Options{}
		if tc.arg != "" {
			opt.Args = []request.KeyValue{arg(checkArg, tc.arg)}
		}
		got, err := checkText(tc.text, opt)
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%q, argument %q: %q, want %q", tc.text, tc.arg, got, tc.want)
		}
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q, argument %q: %v, want %q", tc.text, tc.arg, err, tc.err)
		}
	}
}

// checkText are the rules that Check finds violated, in order.
func checkText(text string, opt Options) ([]string, error) {
	opt.BuildPlatform = v1.Platform{OS: "linux", Architecture: "amd64"}
	file, err := dockerfile.Parse("Dockerfile", []byte(lintText(text)))
	if file == nil {
		return nil, err
	}
	warnings, err := Check(context.Background(), file, opt, testImages())
	var rules []string
	for _, w := range warnings {
		rules = append(rules, w.Rule)
	}
	return rules, err
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name, text, target, want, err string
	}{
		{"stages that nothing needs", "FROM scratch AS a\nCMD x\nFROM base:1 AS b\nWORKDIR y\nFROM scratch\n", "", "JSONArgsRecommended WorkdirRelativePath", ""},
		{"what a target needs", "FROM scratch AS a\nCMD x\nFROM base:1 AS b\nWORKDIR y\nFROM scratch\n", "a", "JSONArgsRecommended", ""},
		{"an unknown target", "FROM scratch AS ab\n", "abc", "", `target stage "abc" could not be found (did you mean ab?)`},
		{"remarks before an error", "FROM scratch\nMAINTAINER x\nNOPE\n", "", "MaintainerDeprecated", "unknown instruction: NOPE"},
		{"an image that is not there", "FROM scratch as a\nFROM nosuch:1\n", "", "FromAsCasing", "nosuch:1: docker.io/library/nosuch:1: not found"},
		{"twice on a line", "FROM scratch\nLABEL a=$X b=$X\n", "", "UndefinedVar UndefinedVar", ""},
		{"no stage", "ARG A=1\n", "", "", "no stages to build"},
		{"an empty file", "", "", "", "cannot be empty"},
	} {
		got, err := checkText(tc.text, Options{Target: tc.target})
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.err)
		}
	}
}

func TestSyntaxWarning(t *testing.T) {
	for syntax, want := range map[string]string{
		"docker/dockerfile:1":                          "",
		"docker/dockerfile":                            "",
		"docker.io/docker/dockerfile:1.4.2@sha256:abc": "",
		"docker/dockerfile:1-labs":                     "",
		"docker/dockerfile:1.28":                       "",
		"docker/dockerfile:1.99":                       "newer than docker/dockerfile:1.28",
		"docker/dockerfile:2":                          "not fetched",
		"docker/dockerfile-upstream:master":            "not fetched",
		"example.test/docker/dockerfile:1":             "not fetched",
	} {
		p := mustPlan(t, "# syntax="+syntax+"\nFROM scratch\n", Options{})
		if want == "" {
			if len(p.Warnings) > 0 {
				t.Errorf("%s: %+v", syntax, p.Warnings)
			}
		} else if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0].Text, want) || p.Warnings[0].Line != 1 {
			t.Errorf("%s: %+v, want %q", syntax, p.Warnings, want)
		}
	}
}

func TestSyntaxOfBuildArgument(t *testing.T) {
	for syntax, want := range map[string]string{
		"":                          "",
		"docker/dockerfile:1":       "",
		" docker/dockerfile:1.99 x": "syntax docker/dockerfile:1.99 is newer",
		"example.test/frontend":     "syntax example.test/frontend is not fetched",
	} {
		opt := Options{Args: []request.KeyValue{arg("BUILDKIT_SYNTAX", syntax)}}
		p := mustPlan(t, "# syntax=docker/dockerfile:2\nFROM scratch\n", opt)
		if want == "" {
			if len(p.Warnings) > 0 {
				t.Errorf("%q: %+v", syntax, p.Warnings)
			}
		} else if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0].Text, want) || p.Warnings[0].Line != 0 {
			t.Errorf("%q: %+v, want %q", syntax, p.Warnings, want)
		}
	}
}
