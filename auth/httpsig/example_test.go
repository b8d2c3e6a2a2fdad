package httpsig_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
	"time"

	"sallyport/auth/httpsig"
)

// A client signs a request, and a server with the same secret verifies it. The server
// must still claim the nonce and verify the content.
func Example() {
	secret := bytes.Repeat([]byte("64 random bytes "), 4) // from crypto/rand, once
	key, err := httpsig.HMACKey("alice-2026-11", secret)
	if err != nil {
		log.Fatal(err)
	}
	then := func() time.Time { return time.Unix(1_800_000_000, 0) } // nil for time.Now

	content := []byte(`{"instances": [1.0, 2.0]}`)
	fields := httpsig.Lines{
		{Name: "Content-Type", Value: "application/json"},
		{Name: "Content-Digest", Value: httpsig.ContentDigest(content)},
	}
	request := &httpsig.Message{
		Method: "POST", Scheme: "https", Authority: "models.example.com", Path: "/v1/models/half:predict",
		Fields: fields,
	}

	signer, err := httpsig.NewSigner(httpsig.RequestProfile(), then)
	if err != nil {
		log.Fatal(err)
	}
	signed, err := signer.Sign(key, request, "n-0123456789") // "" for a fresh nonce
	if err != nil {
		log.Fatal(err)
	}
	request.Fields = append(fields,
		httpsig.Line{Name: "Signature-Input", Value: signed.Input},
		httpsig.Line{Name: "Signature", Value: signed.Signature})
	fmt.Println("Signature-Input:", signed.Input)
	fmt.Println("Signature:", signed.Signature)

	verifier, err := httpsig.NewVerifier(httpsig.RequestPolicy(), httpsig.VerifierOptions{
		Key:       func(id string) *httpsig.Key { return map[string]*httpsig.Key{key.ID(): key}[id] },
		Authority: func(a string) bool { return a == "models.example.com" },
		Now:       then,
	})
	if err != nil {
		log.Fatal(err)
	}
	s, err := verifier.Verify(request)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("signed by", s.Key.ID(), "with the nonce", s.Nonce)

	request.Path = "/v1/models/other:predict"
	_, err = verifier.Verify(request)
	var refused *httpsig.Error
	fmt.Println("another path:", errors.As(err, &refused) && refused.Code == httpsig.BadSignature)
	// Output:
	// Signature-Input: sp=("@method" "@authority" "@path" "@query" "content-digest" "content-type");created=1800000000;expires=1800000060;nonce="n-0123456789";keyid="alice-2026-11";tag="sallyport-req"
	// Signature: sp=:UafgeZxFg58dfj1ngkhCH2HM1RsZ93WMvZM3sIPJZM0=:
	// signed by alice-2026-11 with the nonce n-0123456789
	// another path: true
}

// A server signs its response to a request with the nonce of the request. The client
// verifies that the response belongs to its request.
func ExampleVerifier_VerifyResponse() {
	key, err := httpsig.HMACKey("alice-2026-11", bytes.Repeat([]byte("64 random bytes "), 4))
	if err != nil {
		log.Fatal(err)
	}
	then := func() time.Time { return time.Unix(1_800_000_000, 0) }
	request := &httpsig.Message{
		Method: "GET", Scheme: "https", Authority: "models.example.com", Path: "/v1/models",
		Fields: httpsig.Lines{{Name: "Content-Digest", Value: httpsig.ContentDigest(nil)}},
	}

	// The server.
	fields := httpsig.Lines{
		{Name: "Content-Type", Value: "application/json"},
		{Name: "Content-Digest", Value: httpsig.ContentDigest([]byte(`["half"]`))},
	}
	response := &httpsig.Message{Status: 200, Request: request, Fields: fields}
	signer, err := httpsig.NewSigner(httpsig.ResponseProfile(), then)
	if err != nil {
		log.Fatal(err)
	}
	signed, err := signer.Sign(key, response, "n-of-the-request")
	if err != nil {
		log.Fatal(err)
	}
	response.Fields = append(fields,
		httpsig.Line{Name: "Signature-Input", Value: signed.Input},
		httpsig.Line{Name: "Signature", Value: signed.Signature})

	// The client.
	verifier, err := httpsig.NewVerifier(httpsig.ResponsePolicy(), httpsig.VerifierOptions{
		Key: func(string) *httpsig.Key { return key }, Now: then,
	})
	if err != nil {
		log.Fatal(err)
	}
	s, err := verifier.VerifyResponse(response, "n-of-the-request", false)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Join(s.Components(), " "))
	_, err = verifier.VerifyResponse(response, "n-of-another", false)
	fmt.Println(err)
	response.Status = 404
	_, err = verifier.VerifyResponse(response, "n-of-the-request", false)
	fmt.Println(err)
	// Output:
	// @status content-digest @method;req @authority;req @path;req @query;req content-type content-digest;req
	// the signature does not belong to this request: the nonce is not that of the request
	// the signature does not match: keyid "alice-2026-11"
}

// With Ed25519 the verifier needs no secret; only the signer has the private key.
func ExampleEd25519Key() {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize)) // from ed25519.GenerateKey
	mine, err := httpsig.Ed25519Key("partner-2026", private)
	if err != nil {
		log.Fatal(err)
	}
	theirs, err := httpsig.Ed25519PublicKey("partner-2026", private.Public().(ed25519.PublicKey))
	if err != nil {
		log.Fatal(err)
	}
	fields := httpsig.Lines{{Name: "Content-Digest", Value: httpsig.ContentDigest(nil)}}
	m := &httpsig.Message{Method: "GET", Scheme: "https", Authority: "models.example.com", Path: "/v1/models", Fields: fields}
	signer, err := httpsig.NewSigner(httpsig.RequestProfile(), nil)
	if err != nil {
		log.Fatal(err)
	}
	signed, err := signer.Sign(mine, m, "")
	if err != nil {
		log.Fatal(err)
	}
	m.Fields = append(fields,
		httpsig.Line{Name: "Signature-Input", Value: signed.Input},
		httpsig.Line{Name: "Signature", Value: signed.Signature})

	policy := httpsig.RequestPolicy()
	policy.Algorithms = []httpsig.Algorithm{httpsig.Ed25519} // hmac-sha256 alone if empty
	verifier, err := httpsig.NewVerifier(policy, httpsig.VerifierOptions{
		Key:       func(string) *httpsig.Key { return theirs },
		Authority: func(a string) bool { return a == "models.example.com" },
	})
	if err != nil {
		log.Fatal(err)
	}
	s, err := verifier.Verify(m)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.Key)
	_, err = signer.Sign(theirs, m, "")
	fmt.Println(err)
	// Output:
	// ed25519 key "partner-2026"
	// signing with ed25519 key "partner-2026": the key cannot sign
}

// A server that refuses an unsigned request lists the components to sign.
func ExampleFormatAcceptSignature() {
	value, err := httpsig.FormatAcceptSignature(httpsig.Wanted{
		Label: "sp", Tag: httpsig.TagRequest, Created: true,
		Components: []string{"@method", "@authority", "@path", "@query", "content-digest"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("Accept-Signature:", value)
	// Output:
	// Accept-Signature: sp=("@method" "@authority" "@path" "@query" "content-digest");created;tag="sallyport-req"
}

// A client makes the Profile that a server asks for.
func ExampleParseAcceptSignature() {
	fields := httpsig.Lines{{Name: "Accept-Signature", Value: `sig1=("@method" "@target-uri" "content-digest");created;keyid="k1";tag="app-123"`}}
	wanted, err := httpsig.ParseAcceptSignature(fields)
	if err != nil {
		log.Fatal(err)
	}
	for _, w := range wanted {
		profile := httpsig.Profile{Label: w.Label, Tag: w.Tag, Cover: w.Components}
		fmt.Println(w.KeyID, profile.Tag, profile.Cover)
	}
	// Output:
	// k1 app-123 [@method @target-uri content-digest]
}

// The reader compares content as it arrives. The content is verified only at its end.
func ExampleDigests_NewReader() {
	fields := httpsig.Lines{{Name: "Content-Digest", Value: httpsig.ContentDigest([]byte("what was sent"))}}
	digests, err := httpsig.ParseContentDigest(fields)
	if err != nil {
		log.Fatal(err)
	}
	_, err = io.ReadAll(digests.NewReader(strings.NewReader("what was sent")))
	fmt.Println(err)
	_, err = io.ReadAll(digests.NewReader(strings.NewReader("what was cut")))
	fmt.Println(err)
	// Output:
	// <nil>
	// the content does not match its digest
}

// A tool shows the signature base as a verifier computes it, to compare it with the
// signer's. It verifies nothing.
func ExampleExplain() {
	m := &httpsig.Message{Method: "GET", Scheme: "https", Authority: "Models.Example.com:443", Path: "/v1/models", Fields: httpsig.Lines{
		{Name: "Signature-Input", Value: `sig1=("@method" "@authority" "@path");created=1800000000;keyid="k1";tag="app-123"`},
		{Name: "Signature", Value: `sig1=:AAAA:`},
	}}
	e, err := httpsig.Explain(m, "app-123")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(e.Base)
	// Output:
	// "@method": GET
	// "@authority": models.example.com
	// "@path": /v1/models
	// "@signature-params": ("@method" "@authority" "@path");created=1800000000;keyid="k1";tag="app-123"
}
