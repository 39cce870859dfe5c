package plan

import (
	"strings"
	"testing"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

func TestWarnings(t *testing.T) {
	for _, tc := range []struct {
		rule string // empty: no warning at all
		line int
		text string
	}{
		{"StageNameCasing", 1, "FROM scratch AS Abc\n"},
		{"FromAsCasing", 1, "FROM scratch as abc\n"},
		{"NoEmptyContinuation", 4, "FROM scratch\nLABEL a=b \\\n\n c=d\n"},
		{"ConsistentInstructionCasing", 2, "FROM scratch\nlabel a=b\nLABEL c=d\n"},
		{"DuplicateStageName", 2, "FROM scratch AS a\nFROM scratch AS a\n"},
		{"ReservedStageName", 1, "FROM scratch AS context\n"},
		{"JSONArgsRecommended", 2, "FROM scratch\nCMD x\n"},
		{"", 0, "FROM scratch\nSHELL [\"a\"]\nCMD x\n"},
		{"MaintainerDeprecated", 2, "FROM scratch\nMAINTAINER me\n"},
		{"UndefinedArgInFrom", 2, "ARG NAME=scratch\nFROM ${NAM:-scratch}\n"},
		{"", 0, "ARG NAME\nFROM ${NAME:-scratch}\n"},
		{"WorkdirRelativePath", 2, "FROM scratch\nWORKDIR a\n"},
		{"", 0, "FROM scratch\nWORKDIR /a\nWORKDIR b\n"},
		{"UndefinedVar", 3, "FROM scratch\nENV NAME=x\nLABEL a=$NAM\n"},
		{"UndefinedVar", 2, "FROM scratch\nARG A=$B\n"},
		{"", 0, "FROM scratch\nARG A\nLABEL a=$A\n"},
		{"MultipleInstructionsDisallowed", 2, "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n"},
		{"MultipleInstructionsDisallowed", 2, "FROM scratch\nHEALTHCHECK NONE\nHEALTHCHECK NONE\n"},
		{"", 0, "FROM scratch AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n"},
		{"LegacyKeyValueFormat", 2, "FROM scratch\nENV a b\n"},
		{"InvalidBaseImagePlatform", 1, "FROM registry.test/conformance/base:1\n"},
		{"RedundantTargetPlatform", 1, "FROM --platform=$TARGETPLATFORM registry.test/conformance/multi:1\n"},
		{"SecretsUsedInArgOrEnv", 2, "FROM scratch\nARG NPM_TOKEN\n"},
		{"", 0, "FROM scratch\nARG TOKEN_FILE PUBLIC_KEY TOKENIZER\n"},
		{"InvalidDefaultArgInFrom", 2, "ARG V\nFROM registry.test/conformance/multi:${V}\n"},
		{"FromPlatformFlagConstDisallowed", 1, "FROM --platform=linux/arm64 registry.test/conformance/multi:1\n"},
		{"", 0, "FROM --platform=linux/arm64 registry.test/conformance/multi:1 AS build-arm64\n"},
		{"CopyIgnoredFile", 2, "FROM scratch\nCOPY ./secret/x /\n"},
		{"CopyIgnoredFile", 2, "FROM scratch\nADD secret /\n"},
		{"", 0, "FROM scratch\nCOPY . /\n"},
		{"", 0, "# experimental rules are off\nFROM scratch AS a\nFROM a\n"},
		{"InvalidDefinitionDescription", 3, "# check=experimental=all\n# nonsense\nFROM scratch AS a\n"},
		{"ExposeProtoCasing", 2, "FROM scratch\nEXPOSE 1/TCP\n"},
		{"ExposeInvalidFormat", 2, "FROM scratch\nEXPOSE 127.0.0.1:1:1\n"},
		{"", 0, "# check=skip=all\nFROM scratch as A\nCMD x\n"},
		{"", 0, "FROM scratch\n# check=skip=WorkdirRelativePath\nWORKDIR a\n"},
	} {
		opt := Options{Ignore: []string{"secret"}}
		switch tc.rule {
		case "InvalidBaseImagePlatform":
			opt.Platform.OS, opt.Platform.Architecture = "linux", "arm64"
		case "InvalidDefaultArgInFrom":
			opt.Args = []request.KeyValue{arg("V", "1")}
		}
		p := mustPlan(t, tc.text, opt)
		if tc.rule == "" {
			if len(p.Warnings) > 0 {
				t.Errorf("%s: %+v", tc.text, p.Warnings)
			}
			continue
		}
		if len(p.Warnings) != 1 || p.Warnings[0].Rule != tc.rule || p.Warnings[0].Line != tc.line {
			t.Errorf("%s: %+v, want %s at %d", tc.text, p.Warnings, tc.rule, tc.line)
		}
	}
}

func TestCheckArgument(t *testing.T) {
	_, err := makePlan("FROM scratch\nCMD x\n", Options{Args: []request.KeyValue{arg(checkArg, "error=true")}}, testImages())
	if err == nil || !strings.Contains(err.Error(), "JSONArgsRecommended") {
		t.Errorf("error %v", err)
	}
	_, err = makePlan("# check=error=true\nFROM scratch\nCMD x\n", Options{Args: []request.KeyValue{arg(checkArg, "skip=all")}}, testImages())
	if err != nil {
		t.Error(err)
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
