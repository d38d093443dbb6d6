#!/usr/bin/env node
console.log(require('greeter')(process.argv[2]).toUpperCase());
