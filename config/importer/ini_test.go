package importer

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The wanted values are those of configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False).
func TestINI(t *testing.T) {
	sections, err := parseINI("f", `
[a]
x = 1 ; c
Y: 2;3
z = a
  b

  c
 # comment
  d
w =
; comment
[b]
k=v # c
url=http://h/#x;y
[a]
x = 5
[c:d]]
`)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]map[string]string{}
	for _, s := range sections {
		got[s.name] = map[string]string{}
		for _, o := range lastOptions(s) {
			got[s.name][o.name] = o.value
		}
	}
	want := map[string]map[string]string{
		"a":    {"x": "5", "y": "2;3", "z": "a\nb\n\nc\nd", "w": ""},
		"b":    {"k": "v", "url": "http://h/#x;y"},
		"c:d]": {},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestINIFaults(t *testing.T) {
	for content, want := range map[string]string{
		"a = 1":           "f:1: a section such as [program:web] must begin the file",
		"\n[a]\n\nb":      "f:4: this is neither [SECTION] nor NAME=VALUE",
		"[a]\n = 1":       "f:2: a name is missing",
		"[a]\n[]\n":       "f:2: this is neither",
		"; c\n\nlog: x\n": "f:3: a section",
	} {
		_, err := parseINI("f", content)
		if _, ok := errors.AsType[*ImportError](err); !ok || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", content, err, want)
		}
	}
}
