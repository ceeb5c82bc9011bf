package sockets

import (
	"bytes"
	"strconv"
)

// socketRow holds the fields of a row of /proc/net/tcp that this package uses.
type socketRow struct {
	port    int
	listens bool
	uid     uint32
	inode   uint64
}

// parseSocketRow reads one row: number, local address:port, remote, state, queues,
// timer, retransmits, uid, timeouts, inode, ... (proc_net_tcp(5)).
func parseSocketRow(line []byte) (row socketRow, ok bool) {
	const local, state, uid, inode = 1, 3, 7, 9
	fields := bytes.Fields(line)
	if len(fields) <= inode {
		return row, false
	}
	_, text, found := bytes.Cut(fields[local], []byte(":"))
	port, err := strconv.ParseUint(string(text), 16, 16)
	if !found || err != nil {
		return row, false
	}
	owner, err := strconv.ParseUint(string(fields[uid]), 10, 32)
	if err != nil {
		return row, false
	}
	if row.inode, err = strconv.ParseUint(string(fields[inode]), 10, 64); err != nil {
		return row, false
	}
	row.port, row.uid, row.listens = int(port), uint32(owner), string(fields[state]) == "0A"
	return row, true
}
