package launcher

import (
	"crypto/rand"
	"encoding/hex"
)

// NewToken returns 128 random bits, unique to the instance.
func NewToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}
