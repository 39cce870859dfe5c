package escape

import (
	"bufio"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kbuild-sandbox/kbuild-sandbox/sandbox/gateway"
)

// forbiddenEndpoints are the host:port that row 19 tries: those of canaries, and
// other ways to write them and the host.
func forbiddenEndpoints() (canaries, others []string) {
	runner, world := Forbidden()
	for _, a := range append(runner, world...) {
		for _, port := range canaryPorts {
			canaries = append(canaries, net.JoinHostPort(a, port))
		}
	}
	return canaries, []string{
		"0.0.0.0:80", "[::]:80", "[::ffff:169.254.169.254]:80", "[::ffff:a9fe:a9fe]:80", "[::ffff:127.0.0.1]:80", "[64:ff9b::a9fe:a9fe]:80",
		"[2002:a9fe:a9fe::1]:80", "[::169.254.169.254]:80", "255.255.255.255:80", "224.0.0.1:80", "[ff02::1]:80", "[fe80::1]:80", "240.0.0.1:80",
		netip.AddrPortFrom(gateway.GatewayIPv4, 80).String(), netip.AddrPortFrom(gateway.GatewayIPv4, 2375).String(), netip.AddrPortFrom(gateway.GatewayIPv6, 80).String(),
	}
}

func forbiddenAddresses(t *Target) Outcome {
	t.Names.Set("metadata.test", func() []string { return []string{"169.254.169.254", "fd00:ec2::254"} })
	canaries, others := forbiddenEndpoints()
	r := t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nCOPY probe nonce addresses nothing /\n" +
			"RUN /probe 19 reach http://$PUBLIC/hello /addresses && /probe 19 ask public.test -metadata.test\n" +
			"RUN /probe 19 reach http://public.test/hello /nothing\n",
		Files: map[string]string{"addresses": strings.Join(append(canaries, others...), "\n") + "\n", "nothing": ""},
		Args:  []string{"--audit-log", "audit.json"},
	})
	r.Done()
	denied := map[string]bool{}
	for _, line := range t.audit("audit.json") {
		if line.Verdict == "denied" {
			denied[line.Protocol+" "+net.JoinHostPort(line.Address, strconv.Itoa(line.Port))] = true
		}
	}
	_, world := Forbidden()
	for _, a := range world {
		for _, port := range canaryPorts {
			if at := "tcp " + net.JoinHostPort(a, port); !denied[at] {
				t.Errorf("%s was not recorded as denied", at)
			}
		}
	}
	return t.Verdict(r.Output)
}

// auditLine is what is looked at of a line of the audit log.
type auditLine struct {
	Protocol, Name, Address, Verdict string
	Port                             int
}

// audit reads an audit log that a build wrote.
func (t *Target) audit(name string) []auditLine {
	t.Helper()
	f, err := os.Open(filepath.Join(t.Dir, "out", name))
	must(t, err)
	defer f.Close()
	var lines []auditLine
	for s := bufio.NewScanner(f); s.Scan(); {
		var l auditLine
		must(t, json.Unmarshal(s.Bytes(), &l))
		lines = append(lines, l)
	}
	if len(lines) == 0 {
		t.Error("the audit log is empty")
	}
	return lines
}

func leakByNames(t *Target) Outcome {
	runner, world := Forbidden()
	servers := strings.Join(append(append(runner, world...), resolverIPv4, PublicIPv4, gateway.GatewayIPv4.String()), " ")
	label := strings.TrimPrefix(t.Nonce, "nonce-")
	r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nCOPY probe nonce /\n" +
		"RUN --network=none /probe 20 nonetwork " + servers + "; nslookup " + label + ".none.test; nslookup " + label + ".direct.test " + resolverIPv4 + "; true\n" +
		"RUN /probe 0 ask public.test -" + label + ".exfil.test; nslookup " + label + ".other.test " + resolverIPv4 + "; true\n",
		Args: []string{"--net", "allowlist", "--allow-net", "public.test", "--audit-log", "audit.json"},
	})
	r.Done(`probe +$NONCE REJECTED`)
	for _, name := range t.Names.Asked() {
		if strings.Contains(name, label) {
			t.Errorf("the world's name server was asked for %s", name)
		}
	}
	recorded := false
	for _, line := range t.audit("audit.json") {
		recorded = recorded || line.Protocol == "dns" && line.Verdict == "denied" && strings.TrimSuffix(line.Name, ".") == label+".exfil.test"
	}
	if !recorded {
		t.Error("the question was not recorded as denied")
	}
	return t.Verdict(r.Output)
}
