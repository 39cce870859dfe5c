package request

import (
	"encoding/binary"
	"fmt"
	"io"
)

// MaxAgentMessage is the largest message of the SSH agent protocol that any
// agent takes, in bytes.
const MaxAgentMessage = 256 << 10

// AgentMessage is a message of the SSH agent protocol as it stands on a socket:
// its length in four bytes, then the message (draft-miller-ssh-agent, section 3).
func AgentMessage(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

// ReadAgentMessage reads one message and takes off its length. An empty message,
// or one that is larger than MaxAgentMessage, is an error before it is read.
func ReadAgentMessage(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxAgentMessage {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	message := make([]byte, n)
	_, err := io.ReadFull(r, message)
	return message, err
}
