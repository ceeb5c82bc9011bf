package peers

import "sync/atomic"

// Kind is a kind of memory that a client can make the server keep.
type Kind uint8

const (
	Data     Kind = iota // messages, in both directions, that wait to be sent on or are kept for another attempt
	Headers              // headers of requests that no endpoint has answered yet
	Trailers             // trailers of responses, which wait behind the data
	Output               // frames that the client's socket has not accepted
	Input                // frames and header blocks that have arrived in part
	Calls                // the calls themselves
	Kinds                // the number of kinds
)

// keeping counts the bytes that are kept for a connection, by kind.
type keeping [Kinds]atomic.Int64
