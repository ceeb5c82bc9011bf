package earlysignal

import "os"

// ending are the signals that end a master.
var ending = []os.Signal{os.Interrupt}
