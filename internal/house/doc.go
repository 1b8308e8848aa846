// Package house has no code of its own: its tests hold the rules of this repository that a
// compiler doesn't. Who may import whom; that packages are documented; that there is no init,
// no mutable package variable, no bare sleep and no stray context; that files and the root
// package stay small; that links in the documents resolve, their Go code compiles, and the
// tests they name exist.
package house
