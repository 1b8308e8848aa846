/** Returns a generator of numbers from 0 up to 1, the same ones for the same seed. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let x = state;
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return ((x ^ (x >>> 16)) >>> 0) / 2 ** 32;
  };
}

/** The seed of this run: that of the variable SEED, or a new one. */
export function seed() {
  return Number(process.env.SEED) || Math.floor(Math.random() * 2 ** 31) + 1;
}
