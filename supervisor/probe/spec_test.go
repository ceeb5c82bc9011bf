package probe

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultsOfASpec(t *testing.T) {
	want := Spec{Type: TypeAuto, Policy: DefaultPolicy()}
	if diff := cmp.Diff(want, Spec{}.WithDefaults()); diff != "" {
		t.Errorf("the defaults differ (-want +got):\n%s", diff)
	}
	own := Spec{Type: TypeHTTP, Policy: Policy{
		Interval: time.Minute, Timeout: time.Hour, Missed: 7, Passes: 8, Lateness: 9,
	}}
	if diff := cmp.Diff(own, own.WithDefaults()); diff != "" {
		t.Errorf("set values are replaced (-want +got):\n%s", diff)
	}
}

func TestFaultsOfASpec(t *testing.T) {
	const secret = "hunter2"
	header := func(name, content string) map[string]string { return map[string]string{name: content} }
	for name, test := range map[string]struct {
		spec Spec
		want string // "" if it has no fault
	}{
		"nothing":        {Spec{}, ""},
		"auto":           {Spec{Type: TypeAuto}, ""},
		"negative":       {Spec{Policy: Policy{Passes: -1}}, "Passes:-1"},
		"unknown type":   {Spec{Type: "dns"}, `type "dns"`},
		"own port":       {Spec{Type: TypeTCP}, ""},
		"address":        {Spec{Type: TypeGRPC, Address: "db:{port}"}, ""},
		"IPv6":           {Spec{Type: TypeTCP, Address: "[::1]:5432"}, ""},
		"no port":        {Spec{Type: TypeTCP, Address: "db"}, "HOST:PORT"},
		"port 0":         {Spec{Type: TypeTCP, Address: "db:0"}, "HOST:PORT"},
		"port too high":  {Spec{Type: TypeTCP, Address: "db:65536"}, "HOST:PORT"},
		"URL":            {Spec{Type: TypeHTTP, URL: "https://{worker}:{port}/health?a={replica}"}, ""},
		"no URL":         {Spec{Type: TypeHTTP}, "url: must be"},
		"other scheme":   {Spec{Type: TypeHTTP, URL: "ftp://h/"}, "url: must be"},
		"no host":        {Spec{Type: TypeHTTP, URL: "http:///x"}, "url: must be"},
		"status":         {Spec{Type: TypeHTTP, URL: "http://h/", Status: []int{600}}, "status 600"},
		"header name":    {Spec{Type: TypeHTTP, URL: "http://h/", Headers: header("a b", secret)}, `"a b"`},
		"header value":   {Spec{Type: TypeHTTP, URL: "http://h/", Headers: header("a", secret+"\n")}, `"a"`},
		"no command":     {Spec{Type: TypeExec}, "command: required"},
		"placeholder":    {Spec{Type: TypeExec, Command: []string{"./x", "{pid}"}}, `command: "{pid}" is no`},
		"brace in a URL": {Spec{Type: TypeHTTP, URL: "http://h/{"}, "url: "},
	} {
		err := test.spec.Validate()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v, want no fault", name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", name, err, test.want)
		case err != nil && strings.Contains(err.Error(), secret):
			t.Errorf("%s: %v names a secret", name, err)
		}
	}
}

func TestExpandLeavesTheSpecOfTheUnitAlone(t *testing.T) {
	value := func(name string) (string, bool) { return "<" + name + ">", true }
	s := Spec{
		Address: "h:{port}", URL: "http://h:{port}/{{", Command: []string{"./{unit}", "{worker}"},
		Headers: map[string]string{"X": "{replica}"},
	}
	before := s
	before.Command, before.Headers = slices.Clone(s.Command), maps.Clone(s.Headers)
	got, err := s.Expand(value)
	if err != nil {
		t.Fatal(err)
	}
	want := Spec{
		Address: "h:<port>", URL: "http://h:<port>/{", Command: []string{"./<unit>", "<worker>"},
		Headers: map[string]string{"X": "<replica>"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("expanded (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, s); diff != "" {
		t.Errorf("the spec itself has changed (-before +after):\n%s", diff)
	}
	if !s.Equal(before) || s.Equal(got) {
		t.Error("Equal does not compare the contents")
	}
}

func TestWhatACheckNeeds(t *testing.T) {
	for name, test := range map[string]struct {
		spec             Spec
		port, connection bool
	}{
		"zero":               {Spec{}, true, true},
		"auto":               {Spec{Type: TypeAuto}, true, true},
		"ping":               {Spec{Type: TypePing}, true, true},
		"grpc":               {Spec{Type: TypeGRPC}, true, true},
		"grpc elsewhere":     {Spec{Type: TypeGRPC, Address: "h:1"}, false, false},
		"grpc at the port":   {Spec{Type: TypeGRPC, Address: "h:{port}"}, true, false},
		"tcp":                {Spec{Type: TypeTCP}, true, false},
		"tcp elsewhere":      {Spec{Type: TypeTCP, Address: "h:1"}, false, false},
		"http at the port":   {Spec{Type: TypeHTTP, URL: "http://h:{port}/"}, true, false},
		"http elsewhere":     {Spec{Type: TypeHTTP, URL: "http://h/"}, false, false},
		"exec with the port": {Spec{Type: TypeExec, Command: []string{"c", "{port}"}}, false, false},
		"process":            {Spec{Type: TypeProcess}, false, false},
	} {
		if port, connection := test.spec.UsesPort(), test.spec.UsesConnection(); port != test.port ||
			connection != test.connection {
			t.Errorf("%s: port %t, connection %t, want %t and %t", name, port, connection, test.port, test.connection)
		}
	}
}
