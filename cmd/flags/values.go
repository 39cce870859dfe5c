package flags

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kbuild-sandbox/kbuild-sandbox/executor/request"
)

// listValue collects what a repeated flag is given. A comma is an ordinary
// character: --destination a,b is one destination, as with Kaniko.
type listValue struct {
	list *[]string
}

func (v listValue) String() string {
	if v.list == nil {
		return ""
	}
	return strings.Join(*v.list, " ")
}

func (v listValue) Set(s string) error {
	*v.list = append(*v.list, s)
	return nil
}

func (v listValue) Type() string { return "value" }

// pairsValue collects name=value, split at the first "=".
type pairsValue struct {
	list *[]pair
}

// pair is one name=value; given is false where there was no "=".
type pair struct {
	request.KeyValue
	given bool
}

func (v pairsValue) String() string { return "" }

func (v pairsValue) Set(s string) error {
	key, value, given := strings.Cut(s, "=")
	if key == "" {
		return fmt.Errorf("want name=value")
	}
	*v.list = append(*v.list, pair{request.KeyValue{Key: key, Value: value}, given})
	return nil
}

func (v pairsValue) Type() string { return "name=value" }

// choiceValue takes one of a few words.
type choiceValue struct {
	value *string
	words []string
}

func (v choiceValue) String() string {
	if v.value == nil {
		return ""
	}
	return *v.value
}

func (v choiceValue) Set(s string) error {
	if !slices.Contains(v.words, s) {
		return fmt.Errorf("want one of %s", strings.Join(v.words, ", "))
	}
	*v.value = s
	return nil
}

func (v choiceValue) Type() string { return strings.Join(v.words, "|") }

// refusedValue stands for a flag of Kaniko's that is not carried out. It takes
// any value and remembers that it was given, so that one run names them all.
type refusedValue struct {
	flag  *refused
	given *[]*refused
}

func (v refusedValue) String() string { return "" }

func (v refusedValue) Set(string) error {
	if !slices.Contains(*v.given, v.flag) {
		*v.given = append(*v.given, v.flag)
	}
	return nil
}

func (v refusedValue) Type() string { return "value" }

var (
	_ pflag.Value = listValue{}
	_ pflag.Value = pairsValue{}
	_ pflag.Value = choiceValue{}
	_ pflag.Value = refusedValue{}
)
