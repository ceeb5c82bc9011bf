package records

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// SecretKeySize is the size of a [SecretKey] in bytes.
const SecretKeySize = 32

// SecretKey is the key of the HMACs that stand for environments in the records: equal environments can be recognised,
// and no one without the key can find out a value by trying.
type SecretKey []byte

// ID returns the name of the key in the records. It reveals nothing of the key. It is empty if there is no key.
func (k SecretKey) ID() string {
	if len(k) == 0 {
		return ""
	}
	const length = 16 // enough to tell the keys of one state apart
	return k.mac([]byte("id"))[:length]
}

// MAC returns the HMAC of the environment of a unit, or "" if the unit has none or if there is no key. Units with equal
// values have different ones.
func (k SecretKey) MAC(unit string, environment []string) string {
	if len(k) == 0 || len(environment) == 0 {
		return ""
	}
	text, err := json.Marshal([]any{unit, environment}) // begins with a bracket, so it is no id
	if err != nil {
		return "" // strings cannot fail
	}
	return k.mac(text)
}

func (k SecretKey) mac(text []byte) string {
	h := hmac.New(sha256.New, k)
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil))
}
