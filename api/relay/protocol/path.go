package protocol

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// SplitPath splits the path of a call into its service and its method. ok is false if the path is anything but "/",
// a full name of a service, "/" and the name of a method, as gRPC over HTTP/2 defines it. Servers decode "%44" and
// cut off "?x" and "#x", so any other path could name a method there that it does not name here.
func SplitPath(path string) (service, method string, ok bool) {
	path, ok = strings.CutPrefix(path, "/")
	service, method, _ = strings.Cut(path, "/")
	return service, method, ok && protoreflect.FullName(service).IsValid() && protoreflect.Name(method).IsValid()
}
