"""How long does it take, how sure are we, and is one side slower than the other?"""
