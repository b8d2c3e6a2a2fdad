// Package apikey defines the form of API keys: what a key looks like, and what of it is stored.
package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"strings"
)

// A key is [Prefix], 43 random base62 digits (256 bits) and a checksum of six: the CRC-32
// (IEEE) of all before it. Secret scanners match sp_[0-9A-Za-z]{49}, and the checksum
// tells a key from a text that looks like one.
const (
	Prefix       = "sp_"
	randomDigits = 43
	sumDigits    = 6
	// Len is the length of every key.
	Len = len(Prefix) + randomDigits + sumDigits
)

// HashPrefix is what [HashText] begins with.
const HashPrefix = "sha256:"

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// New returns a new random key.
func New() string {
	key := append(make([]byte, 0, Len), Prefix...)
	var random [64]byte
	for len(key) < Len-sumDigits {
		_, _ = rand.Read(random[:]) // never fails
		for _, b := range random {
			// 248 is a multiple of 62, so that each digit is equally likely.
			if b < 248 && len(key) < Len-sumDigits {
				key = append(key, base62[b%62])
			}
		}
	}
	sum := checksum(key)
	return string(append(key, sum[:]...))
}

// checksum returns the checksum of a key without one. It goes through the table by itself,
// since [crc32.ChecksumIEEE] moves its input to the heap.
func checksum(key []byte) (sum [sumDigits]byte) {
	n := ^uint32(0)
	for _, b := range key {
		n = crc32.IEEETable[byte(n)^b] ^ n>>8
	}
	n = ^n
	for i := len(sum) - 1; i >= 0; i-- {
		sum[i] = base62[n%62]
		n /= 62
	}
	return sum
}

// Hash returns the SHA-256 of a key. ok is false, and nothing is hashed, if the text has
// not the form of a key or its checksum differs. It does not allocate.
func Hash(key string) (hash [sha256.Size]byte, ok bool) {
	if len(key) != Len || !strings.HasPrefix(key, Prefix) {
		return hash, false
	}
	var b [Len]byte
	copy(b[:], key)
	if checksum(b[:Len-sumDigits]) != [sumDigits]byte(b[Len-sumDigits:]) {
		return hash, false
	}
	return sha256.Sum256(b[:]), true
}

// HashText returns the hash of a key as the configuration has it, "" if the text is not a
// key.
func HashText(key string) string {
	hash, ok := Hash(key)
	if !ok {
		return ""
	}
	return HashPrefix + hex.EncodeToString(hash[:])
}
