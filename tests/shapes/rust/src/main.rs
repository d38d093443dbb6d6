fn main() {
    let squares: Vec<String> = (1..=4).map(|n: u32| (n * n).to_string()).collect();
    println!("{}", squares.join(" "));
}
