const isOdd = require("is-odd");

console.log([1, 2, 3].filter(isOdd).join(","), process.env.NODE_ENV);
