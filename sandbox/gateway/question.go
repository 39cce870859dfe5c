package gateway

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Sizes of DNS messages, in bytes.
const (
	maxQuestion = 1024
	// plainAnswer is what an answer over UDP may have when the question says
	// nothing about it (RFC 1035), mostAnswer what it may have in any case.
	plainAnswer = 512
	mostAnswer  = 4096
)

// question is one question of the sandbox.
type question struct {
	id    uint16
	q     dnsmessage.Question
	wants bool // recursion
	edns  bool
	size  int // of the largest answer that it takes over UDP
}

// name is the name as the policy knows it.
func (q question) name() string {
	return strings.ToLower(strings.TrimSuffix(q.q.Name.String(), "."))
}

// kind is the type without Go's prefix, or TYPEn.
func (q question) kind() string {
	if text, ok := strings.CutPrefix(q.q.Type.String(), "Type"); ok {
		return text
	}
	return "TYPE" + q.q.Type.String()
}

// errNoQuestion is a message that deserves no answer: none can be addressed.
var errNoQuestion = errors.New("not a question")

// parseQuestion reads a message of the sandbox. The code is that of the refusal
// where the message is a question but not one that is asked for.
func parseQuestion(msg []byte) (question, dnsmessage.RCode, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response || len(msg) > maxQuestion {
		return question{}, 0, errNoQuestion
	}
	out := question{id: h.ID, wants: h.RecursionDesired, size: plainAnswer}
	if h.OpCode != 0 {
		return out, dnsmessage.RCodeNotImplemented, nil
	}
	out.q, err = p.Question()
	if err != nil {
		return out, dnsmessage.RCodeFormatError, nil
	}
	if _, err := p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return out, dnsmessage.RCodeFormatError, nil
	}
	if err := out.readEDNS(&p); err != nil {
		return out, dnsmessage.RCodeFormatError, nil
	}
	return out, out.refusal(), nil
}

// readEDNS reads what the additional section says about the answer's size.
func (q *question) readEDNS(p *dnsmessage.Parser) error {
	if err := errors.Join(p.SkipAllAnswers(), p.SkipAllAuthorities()); err != nil {
		return err
	}
	for {
		h, err := p.AdditionalHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Type == dnsmessage.TypeOPT {
			q.edns = true
			q.size = min(max(int(h.Class), plainAnswer), mostAnswer)
		}
		if err := p.SkipAdditional(); err != nil {
			return err
		}
	}
}

// refusal tells which questions are not passed on: other classes than the
// internet's, transfers of zones, questions for everything, and names with
// bytes that no host has.
func (q question) refusal() dnsmessage.RCode {
	switch q.q.Type {
	case 251, dnsmessage.TypeAXFR, dnsmessage.TypeALL, dnsmessage.TypeOPT, 249, 250, 253, 254:
		return dnsmessage.RCodeNotImplemented
	}
	if q.q.Class != dnsmessage.ClassINET {
		return dnsmessage.RCodeRefused
	}
	for _, c := range []byte(q.q.Name.String()) {
		if c <= ' ' || c > '~' {
			return deniedName
		}
	}
	return dnsmessage.RCodeSuccess
}

// codeText is the code of a reply that was made here, in the words of resolvers.
func codeText(reply []byte) string {
	const codeByte = 3 // of the header: its lower half (RFC 1035, section 4.1.1)
	if len(reply) <= codeByte {
		return ""
	}
	words := []string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}
	code := int(reply[codeByte] & 15)
	if code < len(words) {
		return words[code]
	}
	return fmt.Sprintf("RCODE%d", code)
}

// hints tells whether the answer would carry addresses where nobody takes them
// out: to such questions the answer is empty.
func (q question) hints() bool {
	return q.q.Type == dnsmessage.TypeSVCB || q.q.Type == dnsmessage.TypeHTTPS
}

// reply packs an answer. One that is too large for limit is cut to nothing and
// says so: the asker then comes over TCP.
func (q question) reply(a answer, limit int) ([]byte, error) {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: q.id, Response: true, RecursionDesired: q.wants, RecursionAvailable: true, RCode: a.code,
		},
		Answers: a.answers, Authorities: a.authorities,
	}
	if q.q.Name.Length > 0 {
		m.Questions = []dnsmessage.Question{q.q}
	}
	if q.edns {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(mostAnswer, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	b, err := m.Pack()
	if err == nil && len(b) > limit {
		m.Truncated, m.Answers, m.Authorities = true, nil, nil
		return m.Pack()
	}
	return b, err
}
