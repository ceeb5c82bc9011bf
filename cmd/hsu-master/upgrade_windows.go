package main

import (
	"errors"
	"net"
	"os"
)

// listenerAddress fails: Windows has no upgrade in place.
func listenerAddress(*os.File) (net.Addr, error) { return nil, errors.ErrUnsupported }
