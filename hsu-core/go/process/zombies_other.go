//go:build unix && !linux

package process

// onlyZombies is false where nothing tells them apart. On macOS nothing has to: a signal to a group of zombies
// is an error there.
func onlyZombies(int) bool { return false }
