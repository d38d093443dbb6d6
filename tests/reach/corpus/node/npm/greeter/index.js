module.exports = (whom) => `Hello, ${whom}`;
