// Agentclient is a command for RUN steps of the tests: it asks the SSH agent at
// $SSH_AUTH_SOCK for its keys and for a signature by each, then tries all that
// a step must not do, and prints a line for each thing.
package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func main() {
	conn, err := net.Dial("unix", os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		fmt.Println("no agent:", err)
		os.Exit(1)
	}
	client := agent.NewClient(conn)
	keys, err := client.List()
	if err != nil {
		fmt.Println("list:", err)
		os.Exit(1)
	}
	fmt.Println("keys:", len(keys))
	for _, k := range keys {
		fmt.Println("signature", k.Format, ssh.FingerprintSHA256(k), outcome(sign(client, k)))
	}
	_, own, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("add", outcome(client.Add(agent.AddedKey{PrivateKey: own})))
	fmt.Println("add for a time", outcome(client.Add(agent.AddedKey{PrivateKey: own, LifetimeSecs: 60, ConfirmBeforeUse: true})))
	for _, k := range keys {
		fmt.Println("remove", outcome(client.Remove(k)))
	}
	fmt.Println("remove all", outcome(client.RemoveAll()))
	fmt.Println("lock", outcome(client.Lock([]byte("mine"))))
	fmt.Println("unlock", outcome(client.Unlock([]byte("mine"))))
	_, err = client.Extension("session-bind@openssh.com", nil)
	fmt.Println("extension", outcome(err))
	after, err := client.List()
	fmt.Println("keys then:", len(after), outcome(err))
}

// sign has data signed and verifies the signature.
func sign(client agent.ExtendedAgent, k *agent.Key) error {
	data := []byte("data")
	signature, err := client.SignWithFlags(k, data, agent.SignatureFlagRsaSha512)
	if err != nil {
		return err
	}
	public, err := ssh.ParsePublicKey(k.Blob)
	if err != nil {
		return err
	}
	return public.Verify(data, signature)
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, agent.ErrExtensionUnsupported):
		return "refused"
	}
	return "refused: " + err.Error()
}
