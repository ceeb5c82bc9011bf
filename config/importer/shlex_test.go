package importer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func stringsOf(texts []text) []string {
	list := []string{}
	for _, t := range texts {
		list = append(list, string(runes(t)))
	}
	return list
}

// The wanted words are those of shlex.split of Python 3.
func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		`a b`:               {"a", "b"},
		`a "b c" d`:         {"a", "b c", "d"},
		`a 'b c'd`:          {"a", "b cd"},
		`a\ b`:              {"a b"},
		`"a\"b\\c\d"`:       {`a"b\c\d`},
		`'a\b'`:             {`a\b`},
		`a""`:               {"a"},
		`''`:                {""},
		`a #b`:              {"a", "#b"},
		"  a\t b\n":         {"a", "b"},
		"a\\\n b":           {"a\n", "b"},
		"\"a\nb\"":          {"a\nb"},
		`a"b"'c'`:           {"abc"},
		``:                  {},
		`sh -c "a 'b' \"c"`: {"sh", "-c", `a 'b' "c`},
	} {
		got, err := split(literal(line))
		if diff := cmp.Diff(want, stringsOf(got)); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", line, err, diff)
		}
	}
	for line, want := range map[string]error{`"a`: errQuote, `'`: errQuote, `a\`: errEscape} {
		if _, err := split(literal(line)); err != want { //nolint:errorlint // the error itself is wanted
			t.Errorf("%q: %v, want %v", line, err, want)
		}
	}
}

// A reference is part of a word, whatever it stands for.
func TestSplitKeepsReferences(t *testing.T) {
	line := append(append(literal(`a "`), reference("${X}")...), literal(`"b c`)...)
	got, err := split(line)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "${X}b", "c"}, arguments(got)); diff != "" {
		t.Error(diff)
	}
}

// The wanted values are those of supervisord's dict_of_key_value_pairs.
func TestPairs(t *testing.T) {
	type pair struct{ Name, Value string }
	for list, want := range map[string][]pair{
		`A=1`:                    {{"A", "1"}},
		`A="b,c",C='d'`:          {{"A", "b,c"}, {"C", "d"}},
		`A=/x/y:z.t-1,B=2`:       {{"A", "/x/y:z.t-1"}, {"B", "2"}},
		`A=1, B=2,`:              {{"A", "1"}, {"B", "2"}},
		`A="x"#y`:                {{"A", "x"}},
		`A=b"c"`:                 {{"A", `b"c`}},
		`A="",B=1`:               {{"A", ""}, {"B", "1"}},
		`A==`:                    {{"A", "="}},
		"A=\"x\ny\",\n  B=\"z\"": {{"A", "x\ny"}, {"B", "z"}},
		``:                       nil,
	} {
		got, err := pairs(literal(list))
		var found []pair
		for _, v := range got {
			found = append(found, pair{v.name, string(runes(v.value))})
		}
		if diff := cmp.Diff(want, found); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", list, err, diff)
		}
	}
	for _, list := range []string{"A", "A=", "A=1 B=2", "A=a@b", `A="b`, "=1"} {
		if got, err := pairs(literal(list)); err == nil {
			t.Errorf("%q: %v", list, got)
		}
	}
}
