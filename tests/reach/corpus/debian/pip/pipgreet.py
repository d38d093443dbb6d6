def main():
    print("said by python")
