package store

import (
	"encoding/binary"
	"hash/fnv"
)

// The layouts of bbolt's file and of counter.dat, written out once more: the tests damage certain places of them. See
// packages boltfile and counterfile.
const (
	pageHeaderSize  = 16
	metaSize        = 64
	leafElementSize = 16

	branchPage = 0x01
	leafPage   = 0x02

	minPageSize = 1 << 10

	copyDistance = 4096
	counterSize  = 2 * copyDistance
)

var order = binary.NativeEndian

func metaChecksum(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b[:56])
	return h.Sum64()
}
