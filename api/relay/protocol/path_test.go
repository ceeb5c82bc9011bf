package protocol

import (
	"testing"
)

func TestSplitPath(t *testing.T) {
	for _, c := range []struct {
		path, service, method string
		ok                    bool
	}{
		{"/pkg.Service/Method", "pkg.Service", "Method", true},
		{"/Service/_m1", "Service", "_m1", true},
		{path: "/pkg.Service/Method?"},
		{path: "/pkg.Service/Method?x=1"},
		{path: "/pkg.Service/Method#a"},
		{path: "/pkg.Service/Method;a=1"},
		{path: "/pkg.Service/Meth%6Fd"},
		{path: "/pkg%2EService/Method"},
		{path: "/pkg.Service%2FMethod"},
		{path: "/pkg.Service/Method/"},
		{path: "/pkg.Service//Method"},
		{path: "//pkg.Service/Method"},
		{path: "/./pkg.Service/Method"},
		{path: "/pkg.Service/../pkg.Service/Method"},
		{path: "/pkg.Service/."},
		{path: "/pkg..Service/Method"},
		{path: "/.Service/Method"},
		{path: "/pkg.Service/Method "},
		{path: "/pkg.Service\\Method"},
		{path: "/pkg.Service/Meth\u00f6d"},
		{path: "http://host/pkg.Service/Method"},
		{path: "pkg.Service/Method"},
		{path: "/pkg.Service/"},
		{path: "/pkg.Service"},
		{path: "//Method"},
		{path: "/"},
		{path: ""},
		{path: "*"},
	} {
		service, method, ok := SplitPath(c.path)
		if ok != c.ok || ok && (service != c.service || method != c.method) {
			t.Errorf("splitPath(%q) = %q, %q, %t", c.path, service, method, ok)
		}
	}
}
