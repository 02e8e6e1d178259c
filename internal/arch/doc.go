// Package arch guards the shape of the project. It has no code of its own, only
// tests, which read the source tree and fail with a sentence that says what to
// do about it.
//
// They promise three things of every commit: an import between two packages of
// this module points down the table in table_test.go, and what that table calls
// standalone compiles from the standard library alone, in this tree and in a
// program of somebody else's that imports it; a package says in its
// comment what it is for, under a name that says it too; and a file is short
// enough to tell one story.
//
// Imports of test files are not looked at: a test may use whatever helps it.
// The modules beside this one, peers and tools, are free to import what they
// like, but keep the rules for files and names.
package arch
