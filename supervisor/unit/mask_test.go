package unit

import "testing"

func TestMask(t *testing.T) {
	env := []string{
		"LEVEL=info", "TOKEN=s3cr3t-token", "URL=https://u:s3cr3t-token@h/", "KEY=first line\nsecond line\n", "EMPTY=",
	}
	for text, want := range map[string]string{
		"no such table":                       "no such table",
		"token s3cr3t-token, s3cr3t-token!":   "token $TOKEN, $TOKEN!",
		"get https://u:s3cr3t-token@h/health": "get $URLhealth",
		"information: second line":            "information: $KEY",
		"s3cr3t-toke":                         "s3cr3t-toke",
		"":                                    "",
	} {
		if got := Mask(text, env); got != want {
			t.Errorf("%q is masked as %q, want %q", text, got, want)
		}
	}
}
