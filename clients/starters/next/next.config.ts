import { resolve } from 'node:path';
import type { NextConfig } from 'next';

const config: NextConfig = {
  // `pressroom-client` is a folder of this repository. Remove this line if you install it from a registry.
  turbopack: { root: resolve(import.meta.dirname, '../..') },
};

export default config;
