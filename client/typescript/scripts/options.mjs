/** What everything that is made of src has in common: names that start with an underscore never leave the package, and are made short. */
export const options = {
  bundle: true,
  minify: true,
  mangleProps: /^_/,
  format: 'esm',
  target: 'es2022',
};
