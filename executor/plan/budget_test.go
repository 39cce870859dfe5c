package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Dockerfiles that grow without limit are refused, and soon.
func TestBudget(t *testing.T) {
	big := strings.Repeat("x", 60000)
	for name, tc := range map[string]struct{ text, want string }{
		"doubling":         {"FROM scratch\nENV A=xxxxxxxx\n" + strings.Repeat("ENV A=$A$A\n", 100), "a variable can have at most"},
		"doubling labels":  {"FROM scratch\nENV A=" + big + "\n" + strings.Repeat("LABEL a="+strings.Repeat("$A", 900)+"\n", 900), "expand"},
		"arguments in RUN": {"FROM scratch\nARG A=" + big + "\n" + strings.Repeat("RUN x\n", 3000), "expands to more than"},
		"ports":            {"FROM scratch\n" + strings.Repeat("EXPOSE 0-65535 0-65535/udp 0-65535/sctp\n", 1000), "expands to more than"},
		"inherited history": {"FROM scratch AS s0\n" + strings.Repeat("LABEL a=b\n", 2000) + func() string {
			var b strings.Builder
			for i := range 2000 {
				fmt.Fprintf(&b, "FROM s%d AS s%d\n", i, i+1)
			}
			return b.String()
		}(), "expands to more than"},
		"replacement":       {"FROM scratch\nENV A=" + big + "\nENV B=${A//?/" + big[:5000] + "}\n", "too much text"},
		"inner replacement": {"FROM scratch\nENV A=" + big + "\nENV B=${A//?/$A}\n", "too much text"},
		"patterns":          {"FROM scratch\nENV A=" + big + "\nENV B=${A%%" + strings.Repeat("?*", 10000) + "y}\n", "too much text"},
		"nested":            {"FROM scratch\nCOPY <<E /\n" + strings.Repeat(strings.Repeat("${a:-", 1000)+"\n", 1000) + "E\n", "nested more than"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := makePlan(tc.text, Options{}, testImages())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %.300v, want %q", err, tc.want)
			}
			if d := time.Since(start); d > 30*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// What is large but real is not refused.
func TestBudgetHasRoom(t *testing.T) {
	text := "FROM scratch\nENV V=1.2.3 DIR=/opt/thing\n"
	for i := range 300 {
		text += fmt.Sprintf("ENV VAR_%d=${VAR_%d:-$DIR}/${V%%.*}\nARG ARG_%d=${VAR_%d//o/0}\nRUN step $VAR_%d\n", i, i-7, i, i, i)
	}
	text += "COPY <<E /big\n" + strings.Repeat("line with $V and ${DIR##*/} and ${V/./,}\n", 20000) + "E\n"
	p := mustPlan(t, text, Options{})
	if n := len(p.Target.Steps); n != 301 {
		t.Errorf("%d steps", n)
	}
}
