package boltfile

// mapSize is zero: Windows would extend the file to the size of the mapping.
const mapSize = 0
