package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	_ "embed" // the client
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sallyport/auth/httpsig"
)

// pythonClient is the client for partners. The examples use it too.
//
//go:embed handover/sallyport_client.py
var pythonClient string

// callProgram is the partner's first program; @URL@, @KEY_ID@ and @SECRET@ are placeholders.
//
//go:embed handover/call.py
var callProgram string

// handedFile is one file that keygen writes.
type handedFile struct {
	Name string `json:"name"`
	Mode string `json:"mode"`
	For  string `json:"for"` // who must get it

	mode fs.FileMode
	text []byte
}

func newFile(name string, mode fs.FileMode, whom string, text []byte) handedFile {
	return handedFile{Name: name, Mode: fmt.Sprintf("%04o", mode), For: whom, mode: mode, text: text}
}

// secretBytes is the length of secrets: one block of SHA-256, which HMAC uses unhashed.
const secretBytes = 64

// newKey makes a key and its files. The first file is for the partner.
func newKey(id string, alg httpsig.Algorithm) (*httpsig.Key, []handedFile, error) {
	if alg == httpsig.Ed25519 {
		return newKeyPair(id)
	}
	secret := make([]byte, secretBytes)
	if _, err := rand.Read(secret); err != nil {
		return nil, nil, fmt.Errorf("making the secret: %w", err)
	}
	key, err := httpsig.HMACKey(id, secret)
	if err != nil {
		return nil, nil, err
	}
	text := append(base64.StdEncoding.AppendEncode(nil, secret), '\n')
	return key, []handedFile{newFile(id+".secret", 0o400, "partner and gateway, and nobody else", text)}, nil
}

func newKeyPair(id string) (*httpsig.Key, []handedFile, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making the key: %w", err)
	}
	key, err := httpsig.Ed25519Key(id, private)
	if err != nil {
		return nil, nil, err
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("writing the key: %w", err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, nil, fmt.Errorf("writing the key: %w", err)
	}
	return key, []handedFile{
		newFile(id+".private.pem", 0o400, "partner, and nobody else", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateDER})),
		newFile(id+".public.pem", 0o644, "gateway", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER})),
	}, nil
}

// vectorFile returns the file with a test vector.
func vectorFile(v *vector) (handedFile, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return handedFile{}, fmt.Errorf("writing the test vector: %w", err)
	}
	return newFile("test-vector.json", 0o644, "partner", text.Bytes()), nil
}

// writeNew writes files to a folder that only its owner can read, and makes the folder if
// necessary. If a file exists already or cannot be written, it removes those that it has
// written.
func writeNew(dir string, files []handedFile) (err error) {
	var made []string
	defer func() {
		for i := len(made) - 1; err != nil && i >= 0; i-- {
			err = errors.Join(err, os.Remove(made[i]))
		}
	}()
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		made = append(made, dir)
	case errors.Is(err, fs.ErrExist):
		if err := ownFolder(dir); err != nil {
			return err
		}
	default:
		return fmt.Errorf("making the folder: %w", err)
	}
	for _, file := range files {
		name := filepath.Join(dir, file.Name)
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, file.mode)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s already exists; nothing was written", name)
		}
		if err != nil {
			return err
		}
		made = append(made, name)
		_, err = f.Write(file.text)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// ownFolder refuses a folder that other users can read.
func ownFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s already exists and is not a folder", dir)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s already exists, and other users can read it; chmod 700 it, or name a new one", dir)
	}
	return nil
}
