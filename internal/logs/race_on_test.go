//go:build race

package logs

// slower is by how much tests of quantity do less: SQLite in Go is many times slower
// under the race detector.
const slower = 8
