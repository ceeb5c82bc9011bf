// Package rotate moves the old lines of logs into rotated files while workers write to the logs.
//
// A worker holds its log open with O_APPEND and never reopens it. So the log stays the same file, and its old lines
// are freed in place. A rotation (see [log.rotate]) takes these steps, each a crash point:
//
//  1. Copy the lines, up to the end of one, to a file of its own, and sync that.
//  2. Write a marker over the beginning of the log. From here on, the copied lines count as rotated.
//  3. Rename the copy to its number.
//  4. Free the copied lines, with the best operation that the file system has:
//     collapse (ext4, XFS): the blocks are removed and offsets move down. Needs O_APPEND of every writer;
//     punch (btrfs, tmpfs): the blocks become a hole and offsets stay;
//     truncate: lines that are written at this moment, between a read and a truncation, are lost.
//
// A crash before step 2 leaves a copy that is deleted; the lines are in the log. A crash after it leaves the marker,
// and the rotation is completed. So with collapse and punch, no line of a writer that writes each line with one
// write(2) is lost, doubled or torn. This holds after a loss of power too, for lines that had reached the disk. Only a
// line of [logs.LongestLine] or more is cut. NULs before the first line are freed without a rotation.
//
// What a rotation cannot prevent: a program that truncates its log, such as a shell script with "> /dev/stderr", loses
// lines. It is reported as [Truncated]. And a log that is deleted or moved under its writer, as logrotate does, is out
// of reach until the worker is restarted. It is reported as [Lost].
package rotate
