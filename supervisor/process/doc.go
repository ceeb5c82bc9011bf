// Package process makes every operating system call about processes: it starts
// them, proves who they are, signals them, learns of their death and finds those
// that an earlier master left behind. Nothing above it knows a system call.
package process
