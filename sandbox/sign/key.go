package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"
)

// MaxKey bounds a key file, in bytes.
const MaxKey = 64 << 10

// Key is a private key: ECDSA on P-256, or Ed25519.
type Key struct{ private crypto.Signer }

// ErrPassword says that the password of a key is not the right one.
var ErrPassword = errors.New("the password of the key is wrong")

var errOpenSSL = errors.New("keys that openssl has encrypted are not supported: decrypt it, or use cosign's form")

// ParseKey reads a private key in PEM: PKCS #8, SEC 1, or cosign's encrypted
// form. Password is asked for the last one only.
func ParseKey(file []byte, password func() ([]byte, error)) (Key, error) {
	block, rest := pem.Decode(file)
	if block == nil {
		return Key{}, errors.New("the key is not in PEM")
	}
	if next, _ := pem.Decode(rest); next != nil && block.Type == "EC PARAMETERS" {
		block = next // openssl ecparam -genkey writes them before the key
	}
	switch block.Type {
	case "PRIVATE KEY":
		return parsePKCS8(block.Bytes)
	case "EC PRIVATE KEY":
		if block.Headers["Proc-Type"] != "" {
			return Key{}, errOpenSSL
		}
		private, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return Key{}, errors.New("malformed key") // the cause might quote it
		}
		return usable(private)
	case "ENCRYPTED PRIVATE KEY": // PKCS #8
		return Key{}, errOpenSSL
	case "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
		secret, err := password()
		if err != nil {
			return Key{}, err
		}
		der, err := decrypt(block.Bytes, secret)
		if err != nil {
			return Key{}, err
		}
		return parsePKCS8(der)
	}
	return Key{}, fmt.Errorf("keys of type %.40q are not supported: want PRIVATE KEY or cosign's", block.Type)
}

func parsePKCS8(der []byte) (Key, error) {
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return Key{}, errors.New("malformed key")
	}
	return usable(private)
}

func usable(private any) (Key, error) {
	switch k := private.(type) {
	case ed25519.PrivateKey:
		return Key{k}, nil
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return Key{k}, nil
		}
	}
	return Key{}, errors.New("keys of this kind are not supported: want ECDSA P-256 or Ed25519")
}

// sealed is cosign's encrypted key (sigstore/sigstore, pkg/encrypted).
type sealed struct {
	KDF struct {
		Name   string `json:"name"`
		Params struct {
			N int `json:"N"`
			R int `json:"r"`
			P int `json:"p"`
		} `json:"params"`
		Salt []byte `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

// maxScrypt bounds the memory that a key file may ask for: 128*N*r bytes.
const maxScrypt = 512 << 20

func decrypt(body, password []byte) ([]byte, error) {
	var s sealed
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, errors.New("malformed encrypted key")
	}
	p := s.KDF.Params
	if s.KDF.Name != "scrypt" || s.Cipher.Name != "nacl/secretbox" {
		return nil, fmt.Errorf("keys encrypted with %.20q and %.20q are not supported", s.KDF.Name, s.Cipher.Name)
	}
	var nonce [24]byte
	if p.N < 2 || p.R < 1 || p.P < 1 || p.P > 16 || p.R > 64 || p.N > maxScrypt/128/p.R || copy(nonce[:], s.Cipher.Nonce) != len(s.Cipher.Nonce) {
		return nil, errors.New("malformed encrypted key")
	}
	derived, err := scrypt.Key(password, s.KDF.Salt, p.N, p.R, p.P, 32)
	if err != nil {
		return nil, errors.New("malformed encrypted key")
	}
	der, ok := secretbox.Open(nil, s.Ciphertext, &nonce, (*[32]byte)(derived))
	if !ok {
		return nil, ErrPassword
	}
	return der, nil
}

// Public is the public key in PEM.
func (k Key) Public() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// sign signs a message: ECDSA over its SHA-256 in ASN.1, or Ed25519 over it.
func (k Key) sign(message []byte) ([]byte, error) {
	if _, ok := k.private.(ed25519.PrivateKey); ok {
		return k.private.Sign(nil, message, crypto.Hash(0))
	}
	sum := sha256.Sum256(message)
	return k.private.Sign(rand.Reader, sum[:], crypto.SHA256)
}
