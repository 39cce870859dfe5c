package sign

import (
	"encoding/json"
	"fmt"
	"strings"
)

// payloadType is that of an in-toto statement.
const payloadType = "application/vnd.in-toto+json"

// envelope is a signed payload (secure-systems-lab/dsse, envelope.md).
type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"`
	Signatures  []signature `json:"signatures"`
}

// signature has no key id, as cosign's: who verifies names the key.
type signature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

// seal signs a statement and returns the envelope as JSON.
func (k Key) seal(statement []byte) ([]byte, error) {
	if err := checkStatement(statement); err != nil {
		return nil, err
	}
	sig, err := k.sign(preAuth(statement))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return json.Marshal(envelope{PayloadType: payloadType, Payload: statement, Signatures: []signature{{Sig: sig}}})
}

// preAuth is what is signed: payload and type, so that neither can be taken for
// another (dsse, protocol.md).
func preAuth(payload []byte) []byte {
	head := fmt.Sprintf("DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	return append([]byte(head), payload...)
}

// checkStatement refuses what is no statement of provenance about digests.
func checkStatement(raw []byte) error {
	var s struct {
		Type          string `json:"_type"`
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("not a statement: %w", err)
	}
	if s.Type != "https://in-toto.io/Statement/v1" || s.PredicateType != "https://slsa.dev/provenance/v1" || len(s.Subject) == 0 {
		return fmt.Errorf("not a statement of provenance")
	}
	for _, sub := range s.Subject {
		hex := sub.Digest["sha256"]
		if len(sub.Digest) != 1 || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
			return fmt.Errorf("not a statement about SHA-256 digests")
		}
	}
	return nil
}
